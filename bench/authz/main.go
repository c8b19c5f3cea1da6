// Authz measures how fast external authorization is answered, within the process
// and by a real gRPC client over a Unix socket, and holds it against targets.
//
//	authz [-write FILE]
//
// Client and server share the process and its processors (two, whatever the machine
// has), so the rate is of both together. Every answer is compared with that of the
// literal evaluator before anything is timed. Lines and exit code are those of
// figures.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/postern-project/postern/bench/report"
)

func main() {
	write := flag.String("write", "", "the file whose table is to be replaced")
	flag.Parse()
	runtime.GOMAXPROCS(2)
	r := report.New()
	for _, w := range []struct {
		name string
		make func() (*world, error)
	}{
		{"cluster-10002", func() (*world, error) { return clusterWorld(10_002) }},
		{"onepod-10000", func() (*world, error) { return onePodWorld(10_000) }},
		{"paths-10000", func() (*world, error) { return pathsWorld(10_000) }},
	} {
		fmt.Fprintln(os.Stderr, "authz:", w.name)
		of, err := w.make()
		exit(err)
		exit(of.check())
		exit(of.inside(r, w.name))
		if w.name == "cluster-10002" {
			exit(of.overSocket(r, w.name))
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
		fmt.Fprintln(os.Stderr, "authz:", err)
		os.Exit(2)
	}
}
