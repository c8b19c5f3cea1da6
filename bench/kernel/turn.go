package main

import (
	"fmt"
	"os"
	"slices"
)

// inTurn loads those that are compared one after the other, times as often as there are rounds,
// to the end and back: so each is as often the first of two as the other.
func inTurn[E any](o options, part string, times int, all []E, load func(E) error) error {
	all = slices.Clone(all)
	for n := range o.rounds * times {
		for _, e := range all {
			if err := load(e); err != nil {
				return err
			}
		}
		slices.Reverse(all)
		if (n+1)%times == 0 {
			fmt.Fprintf(os.Stderr, "kernel: %s: round %d of %d\n", part, (n+1)/times, o.rounds)
		}
	}
	return nil
}
