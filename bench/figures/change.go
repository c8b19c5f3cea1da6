package main

// changes measures what one event costs, from the change of an object to the new
// ruleset in force.
func changes(r *report) error {
	r.pending("change/relabel-known/ns", atMost(100))
	r.pending("change/relabel-new/us", atMost(5))
	r.pending("change/policy/ms", atMost(1))
	return nil
}
