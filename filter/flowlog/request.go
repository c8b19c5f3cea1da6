package flowlog

import (
	"strings"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
)

// Request is what a record of a request has besides the connection.
type Request struct {
	Asked   filter.Request
	Options filter.RequestOptions
	// Source and Destination are the principals as reported; empty for plain text.
	Source, Destination string
	// Problem says what could not be understood; empty if all was.
	Problem string
}

// longest is how much of a text that a client chose gets into a line.
const longest = 256

// request adds what there is to say of a request. The query of a path is left out:
// secrets are put there.
func request(e *zerolog.Event, r *Request) *zerolog.Event {
	if r.Source != "" {
		e = e.Str("src_principal", short(r.Source))
	}
	if r.Destination != "" {
		e = e.Str("dst_principal", short(r.Destination))
	}
	if r.Asked.HTTP {
		path, _, _ := strings.Cut(r.Asked.Path, "?")
		e = e.Str("method", short(r.Asked.Method)).Str("path", short(path))
	}
	if r.Problem != "" {
		e = e.Str("problem", r.Problem)
	}
	return e
}

func short(s string) string {
	if len(s) > longest {
		return s[:longest] + "…"
	}
	return s
}
