package diff

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// DefaultLimit is a generous number of decisions: about a minute on two cores, where
// rules are few for each pod (20 million a second, November 2026).
const DefaultLimit = 1_000_000_000

// Options narrow and bound a comparison.
type Options struct {
	// Limit is the most decisions to take; 0 is DefaultLimit.
	Limit int64
	// From, To and Port narrow the comparison; nil does not.
	From, To *End
	Port     *Port
	// Progress is called now and then, by one goroutine at a time, with how many
	// decisions are done. May be nil.
	Progress func(done, total int64)
}

// End chooses one end of flows; exactly one form is set. A pod or address chooses
// the whole identity it belongs to, since policy cannot tell the rest from it.
type End struct {
	Pod       policy.Key // Namespace and Name
	Address   netip.Addr
	Namespace string
	Account   policy.Key // Namespace and Name
}

// Port chooses traffic.
type Port struct {
	Proto flow.Proto
	// Range is of destination ports, or of ICMP type<<8 | code; 0 to 65535 for
	// everything of the protocol.
	Range flow.PortRange
}

// LimitError tells that a comparison would take too many decisions. None was.
type LimitError struct{ Decisions, Limit int64 }

func (e *LimitError) Error() string {
	return fmt.Sprintf("it would take %d decisions, more than the limit of %d", e.Decisions, e.Limit)
}

// EndError tells that a filter chooses nobody that both sides have.
type EndError struct {
	Side string // "from" or "to"
	End  *End
}

func (e *EndError) Error() string { return e.Side + ": no pod or address that both sides know" }

// NoPodsError tells that no pod is known to both sides, so that nothing can be
// compared.
type NoPodsError struct{ Before, After int } // pods of either side

func (e *NoPodsError) Error() string {
	return fmt.Sprintf("no pods to compare: there are %d before and %d after, and none in both", e.Before, e.After)
}

// Compare tells which verdicts change from one snapshot to another. The snapshots
// are only read. Errors: *LimitError, *EndError, *NoPodsError, the context's, and
// any other if compile and explain disagree, which is a fault of theirs.
func Compare(ctx context.Context, before, after *policy.Snapshot, o Options) (*Report, error) {
	c, err := prepare(before, after, o)
	if err != nil {
		return nil, err
	}
	if err := c.plan(); err != nil {
		return nil, err
	}
	found, err := c.run(ctx)
	if err != nil {
		return nil, err
	}
	return &Report{
		Changes: c.merge(found), Identities: c.ids, OnlyBefore: c.alone[0], OnlyAfter: c.alone[1],
		Pairs: c.pairs, PairsDecided: c.decided, Decisions: c.total, Protocols: c.protocols(),
	}, nil
}

// prepare finds identities, regions and cells, and compiles both sides.
func prepare(before, after *policy.Snapshot, o Options) (*comparison, error) {
	c := &comparison{options: o, scopes: make(map[string]int)}
	c.options.Limit = cmp.Or(o.Limit, DefaultLimit)
	r := newReads(before, after)
	for side, s := range []*policy.Snapshot{before, after} {
		c.worlds[side] = newWorld(s, r)
		rs, problems := compile.Compile(s, compile.Options{})
		if rs == nil {
			return nil, fmt.Errorf("compile: %v", problems)
		}
		c.engines[side] = rs
		c.oracles[side] = explain.New(s, explain.Options{})
	}
	c.ids, c.alone = podIdentities(c.worlds)
	if len(c.ids) == 0 {
		return nil, &NoPodsError{len(before.Endpoints), len(after.Endpoints)}
	}
	c.ids = append(c.ids, regions(c.worlds, c.ids)...)
	for _, id := range c.ids {
		for _, s := range id.scopes() {
			c.scopes[s]++
		}
	}
	c.cells = partition(r, c.worlds[:]...)
	for f := range c.cells {
		c.all[f] = len(c.cells[f])
		c.cells[f] = only(c.cells[f], o.Port)
	}
	return c, nil
}

// comparison is the state of one Compare. Arrays of two are by side, before and
// after, or by family, IPv4 and IPv6.
type comparison struct {
	options Options
	worlds  [2]*world
	engines [2]*filter.Ruleset
	oracles [2]*explain.Evaluator
	ids     []*Identity
	alone   [2][]*Identity // pods that one side has only
	scopes  map[string]int // identities by Identity.scopes
	cells   [2][]cell
	all     [2]int // cells before the port filter

	// Set by plan.
	from, to        []bool    // by identity: chosen by the filters
	touched         [2][]bool // by direction and identity: policies that differ apply
	pairs, decided  int64
	total, progress int64
}

// plan finds the pairs that must be decided and counts them.
func (c *comparison) plan() error {
	c.from, c.to = c.choose(c.options.From), c.choose(c.options.To)
	if !slices.Contains(c.from, true) {
		return &EndError{"from", c.options.From}
	}
	if !slices.Contains(c.to, true) {
		return &EndError{"to", c.options.To}
	}
	if err := c.touch(); err != nil {
		return err
	}
	for i := range c.ids {
		for j := range c.ids {
			if !c.exists(i, j) {
				continue
			}
			c.pairs++
			if c.differs(i, j) {
				c.decided++
				c.total += c.cost(i, j)
			}
		}
	}
	if c.total > c.options.Limit {
		return &LimitError{c.total, c.options.Limit}
	}
	return nil
}

// exists tells whether flows from i to j are ever decided on, and asked for.
func (c *comparison) exists(i, j int) bool {
	return c.from[i] && c.to[j] && (c.ids[i].isPod() || c.ids[j].isPod()) && (c.meet(i, j, 0) || c.meet(i, j, 1))
}

// meet tells whether both have an address of the family.
func (c *comparison) meet(i, j, fam int) bool {
	return c.ids[i].addrs[fam][0].IsValid() && c.ids[j].addrs[fam][0].IsValid()
}

// differs tells whether the verdicts from i to j can differ at all.
func (c *comparison) differs(i, j int) bool {
	return c.ids[i].changed || c.ids[j].changed || c.touched[flow.Egress][i] || c.touched[flow.Ingress][j]
}

func (c *comparison) cost(i, j int) (n int64) {
	for fam := range c.cells {
		if c.meet(i, j, fam) {
			n += 2 * int64(len(c.cells[fam]))
		}
	}
	return n
}

// touch finds whom policies apply to that are not the same on both sides. The
// compiler says so: with only these policies, their subjects are what it protects.
func (c *comparison) touch() error {
	for dir := range c.touched {
		c.touched[dir] = make([]bool, len(c.ids))
	}
	for side := range c.worlds {
		probe := *c.worlds[side].Snapshot
		probe.Policies = different(probe.Policies, c.worlds[1-side].Policies, c.worlds)
		if len(probe.Policies) == 0 {
			continue
		}
		rs, problems := compile.Compile(&probe, compile.Options{})
		if rs == nil {
			return fmt.Errorf("compile: %v", problems)
		}
		for dir := range c.touched {
			protected := make(map[netip.Addr]bool)
			for _, a := range rs.Protected(flow.Direction(dir)) {
				protected[a] = true
			}
			for i, id := range c.ids {
				c.touched[dir][i] = c.touched[dir][i] || protected[id.addrs[0][side]] || protected[id.addrs[1][side]]
			}
		}
	}
	return nil
}

// different gives the policies that the other side has not, or not so, or in a
// tier that differs.
func different(policies, others []*policy.Policy, worlds [2]*world) (out []*policy.Policy) {
	theirs := make(map[policy.Key]*policy.Policy, len(others))
	for _, p := range others {
		theirs[p.Key()] = p
	}
	tier := func(w *world, name string) (t policy.Tier, listed bool) {
		i := slices.IndexFunc(w.Tiers, func(t policy.Tier) bool { return t.Name == name })
		if i < 0 {
			return t, false
		}
		return w.Tiers[i], true
	}
	for _, p := range policies {
		if !counts(p) {
			continue
		}
		name := cmp.Or(p.Tier, policy.DefaultTier)
		t0, ok0 := tier(worlds[0], name)
		t1, ok1 := tier(worlds[1], name)
		if t0 != t1 || ok0 != ok1 || !reflect.DeepEqual(p, theirs[p.Key()]) {
			out = append(out, p)
		}
	}
	return out
}

// choose marks the identities that a filter chooses.
func (c *comparison) choose(e *End) []bool {
	out := make([]bool, len(c.ids))
	for i, id := range c.ids {
		out[i] = e == nil || c.chosen(e, id)
	}
	return out
}

func (c *comparison) chosen(e *End, id *Identity) bool {
	switch {
	case e.Address.IsValid():
		return c.holds(id, e.Address)
	case e.Pod.Name != "":
		return slices.Contains(id.Pods, e.Pod.Namespace+"/"+e.Pod.Name)
	case e.Account.Name != "":
		return id.isPod() && id.Namespace == e.Account.Namespace && id.ServiceAccount == e.Account.Name
	default:
		return id.isPod() && id.Namespace == e.Namespace
	}
}

// holds tells whether the address is one of the identity's, on either side.
func (c *comparison) holds(id *Identity, a netip.Addr) bool {
	for _, w := range c.worlds {
		if w.claims[a] == 0 {
			continue
		}
		for _, ep := range w.Endpoints {
			if slices.Contains(ep.Addrs, a) && slices.Contains(id.Pods, podName(ep)) {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(id.Regions, func(r Region) bool { return r.Contains(a) })
}

// Contains tells whether the region holds an address, if it is no pod's.
func (r Region) Contains(a netip.Addr) bool {
	return r.Prefix.Contains(a) && !slices.ContainsFunc(r.Except, func(p netip.Prefix) bool { return p.Contains(a) })
}
