// Authz measures how fast external authorization is answered, within the process and
// over gRPC through a Unix socket, and holds it against targets.
//
//	authz [-write FILE]
//
// The server is a process of its own, with two processors, whatever the machine has,
// and its processor time is counted apart from that of the clients beside it. Every
// answer is compared with that of the literal evaluator before anything is timed. Lines
// and exit code are those of figures.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"github.com/postern-project/postern/bench/report"
)

const clusterRules = 10_002

func main() {
	write := flag.String("write", "", "the file whose table is to be replaced")
	socket := flag.String("serve", "", "used by the program itself: answer on this socket")
	flag.Parse()
	runtime.GOMAXPROCS(2)
	if *socket != "" {
		exit(serve(*socket))
		return
	}
	r := report.New()
	for _, w := range []struct {
		name string
		make func() (*world, error)
	}{
		{"onepod-10000", func() (*world, error) { return onePodWorld(10_000) }},
		{"paths-10000", func() (*world, error) { return pathsWorld(10_000) }},
		{"cluster-10002", func() (*world, error) { return clusterWorld(clusterRules) }},
	} {
		fmt.Fprintln(os.Stderr, "authz:", w.name)
		of, err := w.make()
		exit(err)
		exit(of.check())
		exit(of.inside(r, w.name))
		if w.name == "cluster-10002" {
			of.snapshot, of.engine, of.server = nil, nil, nil // the clients need the messages only
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
