// Package kubernetes builds the programs of Kubernetes that tests run, from source:
// the nested module in its directory programs pins the version. What was built is
// kept in the user's cache directory, outside of the checkout, under a name made of
// all that it was built from, so that only the first test of a machine waits for it.
package kubernetes
