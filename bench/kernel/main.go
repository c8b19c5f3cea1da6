package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/postern-project/postern/bench/report"
)

// options are what the parts need to know.
type options struct {
	rounds  int
	program string // postern
}

// parts measure one after the other.
var parts = []struct {
	name string
	run  func(*report.Report, options) error
}{
	{"connect", connections},
	{"verdicts", verdicts},
	{"flood", floods},
	{"throughput", throughput},
	{"change", changesInForce},
	{"flow-cache", remembering},
}

// children are what this program does as a child process, by its first argument.
var children = map[string]func(args []string) error{
	"load":     loadMain,
	"serve":    serveMain,
	"flood":    floodMain,
	"raw":      rawMain,
	"callback": callbackMain,
	"send":     sendMain,
	"stream":   streamMain,
}

// talkers are children that are told what to do, line by line, and end with the
// last one.
var talkers = map[string]func(args []string) error{
	"plane": planeMain,
	"watch": watchMain,
}

func main() {
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			go func() {
				io.Copy(io.Discard, os.Stdin) // until the parent is gone
				os.Exit(1)
			}()
			exit(child(os.Args[2:]))
			return
		}
	}
	if len(os.Args) > 1 {
		if child, ok := talkers[os.Args[1]]; ok {
			exit(child(os.Args[2:]))
			return
		}
	}
	only := flag.String("only", "", "run the parts whose name matches (connect, verdicts, flood, throughput, change, flow-cache)")
	rounds := flag.Int("rounds", 9, "rounds of each measurement")
	write := flag.String("write", "", "the file whose table is to be replaced")
	program := flag.String("program", "", "postern; by default it is built from the source around")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	exit(err)
	remove := func() {}
	if *program == "" {
		*program, remove, err = buildProgram()
		exit(err)
	}
	defer remove()
	r := report.New()
	for _, p := range parts {
		if !wanted.MatchString(p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "kernel: %s\n", p.name)
		if err := p.run(r, options{*rounds, *program}); err != nil {
			remove()
			exit(fmt.Errorf("%s: %w", p.name, err))
		}
	}
	met, err := r.Finish(*write)
	exit(err)
	if !met {
		remove()
		os.Exit(1)
	}
}

// exit ends the program if there is an error.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernel:", err)
		os.Exit(2)
	}
}
