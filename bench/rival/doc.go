// Package rival holds what postern is measured against: other tables of prefixes,
// and the two simple ways to decide by policy.
//
// Linear resolves everything beforehand that compiling can resolve, as postern
// does, with the same address table, and then reads the rules that apply to an
// endpoint one after the other. With tight sets it is the strongest of the simple
// ways; with full sets it is what a first version looks like.
//
// Naive resolves nothing beforehand but the order of policies: for each packet it
// asks every policy of the endpoint's namespace whether it selects the endpoint,
// and evaluates the selectors of each rule on the peer's labels. This is how
// kube-network-policies decides, except that it also parses each selector and
// prefix for each packet, which Naive does not.
//
// Both know only what the worlds of package gen say, and refuse the rest.
package rival
