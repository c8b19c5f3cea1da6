package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
)

// newLogger writes JSON, one object a line, or lines for people. format is json,
// console, or auto: for people on a terminal.
func newLogger(w io.Writer, format, level string) (zerolog.Logger, error) {
	lvl, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Logger{}, usageError("--log-level %q: want trace, debug, info, warn or error", level)
	}
	terminal := isTerminal(w)
	switch format {
	case "json":
		w = escaper{w, `\u%04x`}
	case "console":
		w = zerolog.ConsoleWriter{
			Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != "",
			FormatFieldValue: func(v any) string { return oneLine(fmt.Sprintf("%s", v)) },
		}
	case "auto":
		if terminal {
			return newLogger(w, "console", level)
		}
		return newLogger(w, "json", level)
	default:
		return zerolog.Logger{}, usageError("--log-format %q: want json, console or auto", format)
	}
	return zerolog.New(w).Level(lvl).With().Timestamp().Logger(), nil
}
