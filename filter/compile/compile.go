package compile

import (
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Options say for whom to compile.
type Options struct {
	// Node is this node's name. The endpoints it hosts get programs, and so do
	// endpoints that name no node. Empty means that every endpoint is hosted here.
	Node string
	// Pending compiles what would be in force if every staged policy were
	// enforced (spec section 10) instead of what is.
	Pending bool
	// Changes, if set, gives what leads from a snapshot that a Compiler was given to
	// the next one, each object once; ok is false if that is not known. It spares
	// the Compiler the search among all objects, so that compiling takes time in
	// what the changes reach only. k8ssync.Store.Changes is one.
	Changes func(from, to *policy.Snapshot) (changes []policy.Change, ok bool)
}

// Compile compiles one snapshot: see Compiler.Apply.
func Compile(s *policy.Snapshot, o Options) (*filter.Ruleset, []policy.Problem) {
	return New(o).Apply(s)
}

// hostedOn tells whether this node hosts what names the node.
func (c *Compiler) hostedOn(node string) bool {
	return c.options.Node == "" || node == "" || node == c.options.Node
}

var directions = [2]flow.Direction{flow.Ingress, flow.Egress}
