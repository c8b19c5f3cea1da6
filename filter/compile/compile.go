package compile

import (
	"fmt"
	"net/netip"

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
}

// Compile compiles a snapshot, which it only reads; nil is an empty one. The Problems tell what does
// not do what it says; none of them stops the rest. The Ruleset is nil, with a
// Problem that names no object, only if this package is itself at fault; an
// Engine without a Ruleset drops.
func Compile(s *policy.Snapshot, o Options) (*filter.Ruleset, []policy.Problem) {
	if s == nil {
		s = new(policy.Snapshot)
	}
	c := newCompiler(s, o)
	c.addIdentities()
	c.sortPolicies()
	c.selectForPods()
	c.selectForHosts()
	c.buildClasses()
	c.buildRules()
	rs, err := filter.New(&c.spec)
	if err != nil {
		c.problem(policy.Key{}, "", "%v", err)
		return nil, c.problems
	}
	return rs, c.problems
}

// compiler is the state of one Compile.
type compiler struct {
	*policy.Snapshot
	options  Options
	problems []policy.Problem
	spec     filter.Spec

	// Set by newCompiler.
	namespaces      map[string]*policy.Namespace
	serviceAccounts map[accountKey]*policy.ServiceAccount
	profiles        map[string]*policy.Profile

	// Set by addIdentities.
	identities   []identity
	byNamespace  map[string][]int // identities by the value of their namespace label
	podIdentity  []int            // by index of Endpoints
	hostIdentity []int            // by index of HostEndpoints
	addresses    []entry          // of identities

	// Set by sortPolicies.
	tiers    []tier
	policies []rankedPolicy

	// planner is used by selectForPods and selectForHosts.
	planner

	// Set by buildClasses.
	nets        map[netip.Prefix]atom
	services    map[policy.ServiceRef][]serviceSlice
	atomClasses [][]filter.ClassID

	// resolver is used by buildRules.
	resolver
}

// accountKey is a service account's namespace and name.
type accountKey struct{ namespace, name string }

func newCompiler(s *policy.Snapshot, o Options) *compiler {
	c := &compiler{
		Snapshot:        s,
		options:         o,
		namespaces:      make(map[string]*policy.Namespace, len(s.Namespaces)),
		serviceAccounts: make(map[accountKey]*policy.ServiceAccount, len(s.ServiceAccounts)),
		profiles:        make(map[string]*policy.Profile, len(s.Profiles)),
	}
	for _, n := range s.Namespaces {
		c.namespaces[n.Name] = n
	}
	for _, a := range s.ServiceAccounts {
		c.serviceAccounts[accountKey{a.Namespace, a.Name}] = a
	}
	for _, p := range s.Profiles {
		c.profiles[p.Name] = p
	}
	c.spec.Generation = s.Generation
	return c
}

func (c *compiler) problem(object policy.Key, field, format string, args ...any) {
	c.problems = append(c.problems, policy.Problem{Object: object, Field: field, Message: fmt.Sprintf(format, args...)})
}

// hostedOn tells whether this node hosts what names the node.
func (c *compiler) hostedOn(node string) bool {
	return c.options.Node == "" || node == "" || node == c.options.Node
}

var directions = [2]flow.Direction{flow.Ingress, flow.Egress}
