// Figures measures what postern claims about looking addresses up and deciding,
// beside rivals and in one run, and holds it against targets.
//
//	figures [-only REGEXP] [-write FILE]
//
// It prints a line per figure at the end: name, value, target, and ok, short, info
// (no target) or pending (nothing measures it yet). With -write it also replaces
// the table between the markers in FILE. The exit code is 0 if every target is
// met, 1 if one is short or pending, 2 if something went wrong: above all if a
// rival gave another answer than postern, which is checked before anything is
// timed.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"

	"github.com/postern-project/postern/bench/report"
)

// parts measure one after the other.
var parts = []struct {
	name string
	run  func(*report.Report) error
}{
	{"lpm", lookups},
	{"decide", decisions},
	{"onepod", onePod},
	{"change", changes},
	{"build", builds},
}

func main() {
	only := flag.String("only", "", "run the parts whose name matches (lpm, decide, onepod, change, build)")
	write := flag.String("write", "", "the file whose table is to be replaced")
	child := flag.Bool("child", false, "compile once and print what it took (for the part build)")
	flag.Parse()
	if *child {
		exit(buildOnce())
		return
	}
	wanted, err := regexp.Compile(*only)
	exit(err)
	r := report.New()
	for _, p := range parts {
		if !wanted.MatchString(p.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "figures: %s\n", p.name)
		if err := p.run(r); err != nil {
			exit(fmt.Errorf("%s: %w", p.name, err))
		}
	}
	met, err := r.Finish(*write)
	exit(err)
	if !met {
		os.Exit(1)
	}
}

// exit ends the program if there is an error.
func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(2)
	}
}
