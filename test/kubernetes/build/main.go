// Command build builds Kubernetes programs for tests, unless they have been built
// before, and prints their paths. Tests would do so themselves; the Makefile does it
// before them, because it can take longer than a test may.
package main

import (
	"fmt"
	"os"

	"github.com/postern-project/postern/test/kubernetes"
)

func main() {
	for _, name := range os.Args[1:] {
		path, err := kubernetes.Program(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(path)
	}
}
