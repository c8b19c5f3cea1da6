package compile

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/policy"
)

// Compiler turns a sequence of snapshots into rulesets. It remembers the last
// one: what two snapshots have in common, as told by the addresses of their
// objects, is not compiled again. Objects must therefore not change once they
// were in a snapshot. The rulesets decide as if each snapshot had been compiled
// alone.
//
// A Compiler belongs to one goroutine at a time. Rulesets that it gave stay as
// they are.
type Compiler struct {
	options Options
	last    *policy.Snapshot // nil before the first
	effect  Effect           // of the last Apply
	*state
}

// state is everything derived from a snapshot. It is made anew when something
// changes that reaches everywhere, and when most of it is garbage.
type state struct {
	out   *filter.Builder
	notes map[any][]policy.Problem // by object
	fixed []policy.Problem         // of tiers and hosts, which no change below touches

	namespaces      map[string][]label     // what pods and sets in them inherit; never nil
	serviceAccounts map[accountKey][]label // the same of their pods
	profiles        map[string]*policy.Profile

	book
	people
	relabellings
	terms
	planner

	garbage int   // things thrown away since the last rebuild
	failed  error // of the Builder, in this update
}

// accountKey is a service account's namespace and name.
type accountKey struct{ namespace, name string }

// New makes a Compiler.
func New(o Options) *Compiler { return &Compiler{options: o} }

func newState() *state {
	return &state{
		out:             filter.NewBuilder(),
		notes:           make(map[any][]policy.Problem),
		namespaces:      make(map[string][]label),
		serviceAccounts: make(map[accountKey][]label),
		profiles:        make(map[string]*policy.Profile),
		book:            newBook(),
		people:          newPeople(),
		terms:           newTerms(),
		planner:         newPlanner(),
	}
}

// Apply compiles a snapshot, which it only reads; nil is an empty one. The
// Problems tell what does not do what it says; none of them stops the rest. The
// Ruleset is nil, with a Problem that names no object, only if this package is
// itself at fault; an Engine without a Ruleset drops.
func (c *Compiler) Apply(s *policy.Snapshot) (*filter.Ruleset, []policy.Problem) {
	if s == nil {
		s = new(policy.Snapshot)
	}
	old := c.last
	c.last = s
	if old != nil {
		if d, ok := c.changes(old, s); ok && !c.reachesEverywhere(&d) {
			c.effect = Effect{}
			c.update(&d)
			rs, problems := c.publish(s.Generation)
			if rs == nil || !c.wasteful() {
				return rs, problems
			}
			effect := c.effect
			rs, problems = c.anew(s) // which decides the same
			if rs != nil {
				c.effect = effect
			}
			return rs, problems
		}
	}
	return c.anew(s)
}

// anew compiles a snapshot from nothing.
func (c *Compiler) anew(s *policy.Snapshot) (*filter.Ruleset, []policy.Problem) {
	c.rebuild(s)
	rs, problems := c.publish(s.Generation)
	c.effect = everything
	return rs, problems
}

// changes gives what leads from one snapshot to another; ok is false if something
// changed that reaches everywhere.
func (c *Compiler) changes(from, to *policy.Snapshot) (d delta, ok bool) {
	if c.options.Changes != nil {
		if list, known := c.options.Changes(from, to); known {
			return d, d.add(list)
		}
	}
	if !fewAlike(from, to) {
		return d, false
	}
	return between(from, to), true
}

// publish commits and gives the ruleset.
func (c *Compiler) publish(generation uint64) (*filter.Ruleset, []policy.Problem) {
	if err := c.commit(); err != nil {
		c.last, c.state, c.effect = nil, nil, everything
		return nil, []policy.Problem{{Message: err.Error()}}
	}
	return c.out.Publish(generation), c.problems()
}

// delta is what goes and what comes.
type delta struct {
	namespaces pair[policy.Namespace]
	accounts   pair[policy.ServiceAccount]
	pods       pair[policy.Endpoint]
	relabelled []relabelled // pods too: those of which both objects are known
	sets       pair[policy.NetworkSet]
	slices     pair[policy.EndpointSlice]
	policies   pair[policy.Policy]
}

type pair[T any] struct{ old, now []*T }

// between gives the differences of two snapshots.
func between(old, now *policy.Snapshot) (d delta) {
	old, now = old.Complete(), now.Complete()
	d.namespaces = differences(old.Namespaces, now.Namespaces, namespaceKey)
	d.accounts = differences(old.ServiceAccounts, now.ServiceAccounts, accountObjectKey)
	d.pods = differences(old.Endpoints, now.Endpoints, (*policy.Endpoint).Key)
	d.pairPods()
	d.sets = differences(old.NetworkSets, now.NetworkSets, setKey)
	d.slices = differences(old.EndpointSlices, now.EndpointSlices, sliceKey)
	d.policies = differences(old.Policies, now.Policies, (*policy.Policy).Key)
	return d
}

// pairPods finds the pods that went and came under the same name, in lists that are in
// the order of their keys.
func (d *delta) pairPods() {
	old, now := d.pods.old, d.pods.now
	d.pods = pair[policy.Endpoint]{}
	for len(old) > 0 && len(now) > 0 {
		switch order := compareKeys(old[0].Key(), now[0].Key()); {
		case order < 0:
			d.pods.old, old = append(d.pods.old, old[0]), old[1:]
		case order > 0:
			d.pods.now, now = append(d.pods.now, now[0]), now[1:]
		default:
			d.relabelled = append(d.relabelled, relabelled{old[0], now[0]})
			old, now = old[1:], now[1:]
		}
	}
	d.pods.old, d.pods.now = append(d.pods.old, old...), append(d.pods.now, now...)
}

// add takes changes in, and is false if some are of kinds that reach everywhere.
func (d *delta) add(changes []policy.Change) bool {
	for _, ch := range changes {
		old, _ := ch.Old.(*policy.Endpoint)
		if now, _ := ch.New.(*policy.Endpoint); old != nil && now != nil {
			if d.relabelled == nil {
				d.relabelled = make([]relabelled, 0, len(changes))
			}
			d.relabelled = append(d.relabelled, relabelled{old, now})
			continue
		}
		if !(d.namespaces.add(ch) || d.accounts.add(ch) || d.pods.add(ch) || d.sets.add(ch) || d.slices.add(ch) || d.policies.add(ch)) {
			return false
		}
	}
	return true
}

// add takes a change in if it is of this kind.
func (p *pair[T]) add(ch policy.Change) bool {
	old, isOld := ch.Old.(*T)
	now, isNow := ch.New.(*T)
	if isOld && old != nil {
		p.old = append(p.old, old)
	}
	if isNow && now != nil {
		p.now = append(p.now, now)
	}
	return isOld || isNow
}

// reachesEverywhere tells whether a change is not worth following: one of staged
// policies in the pending view, where they replace each other, or one that brings
// or takes a tier that only policies name.
func (c *Compiler) reachesEverywhere(d *delta) bool {
	touched := slices.Concat(d.policies.old, d.policies.now)
	return c.options.Pending && len(touched) > 0 || slices.ContainsFunc(touched, func(p *policy.Policy) bool {
		t := c.tiers[tierOf(p)]
		return t == nil || t.ghost
	})
}

// fewAlike tells whether what is few and changes rarely is the same, and so the
// rest worth comparing: tiers, profiles and host endpoints.
func fewAlike(a, b *policy.Snapshot) bool {
	return slices.Equal(a.Tiers, b.Tiers) && slices.Equal(a.Profiles, b.Profiles) && slices.Equal(a.HostEndpoints, b.HostEndpoints)
}

// wasteful tells whether to begin anew: numbers that a ruleset indexes are not
// used twice, and so their tables grow with every label set and selector that
// comes. Below the floor a rebuild costs more than it gives back. Label sets that come
// and go take a few words each, and are worth one only when they are very many.
func (c *Compiler) wasteful() bool {
	const floor = 4096
	return c.garbage > floor && (c.out.Garbage() > 0.5 || c.dead > maxDead && 2*c.dead > len(c.byAtom))
}

const maxDead = 1 << 20

// rebuild makes the state of a snapshot from nothing.
func (c *Compiler) rebuild(s *policy.Snapshot) {
	s = s.Complete()
	c.state = newState()
	c.expect(s)
	for _, n := range s.Namespaces {
		c.addNamespace(n)
	}
	for _, a := range s.ServiceAccounts {
		c.addAccount(a)
	}
	for _, p := range s.Profiles {
		c.profiles[p.Name] = p
	}
	counted := c.counted(s.Policies)
	c.sortTiers(s.Tiers, counted)
	for _, p := range counted {
		c.addPolicy(p)
	}
	for _, e := range s.EndpointSlices {
		c.addSlice(e)
	}
	for _, e := range s.Endpoints {
		c.addPod(e)
	}
	for _, set := range s.NetworkSets {
		c.addSet(set)
	}
	c.addHosts(s.HostEndpoints)
}

// expect makes room for what a snapshot has most of: tables that grow leave as much
// as they hold to the collector, and the peak of a node's memory is here.
func (c *Compiler) expect(s *policy.Snapshot) {
	n := 0
	for _, e := range s.Endpoints {
		n += len(e.Addrs)
	}
	c.numbered = slices.Grow(c.numbered, n)
	c.dirty = make([]*address, 0, n)
	c.out.Expect(n)
}

// addNamespace and addAccount enter what pods inherit labels from; certificates
// name them too.
func (c *Compiler) addNamespace(n *policy.Namespace) {
	c.namespaces[n.Name] = inheritance(namespacePrefix, n.Name, n.Labels)
	c.out.SetNamespace(n.Name, n.Labels)
}

func (c *Compiler) addAccount(a *policy.ServiceAccount) {
	c.serviceAccounts[accountKey{a.Namespace, a.Name}] = inheritance(accountPrefix, a.Name, a.Labels)
	c.out.SetAccount(a.Namespace, a.Name, a.Labels)
}

// update follows changes. What goes away goes before what comes, so that an
// object that is in both places moves.
func (c *Compiler) update(d *delta) {
	c.relabel(d.relabelled, func(r relabelled) {
		d.pods.old, d.pods.now = append(d.pods.old, r.old), append(d.pods.now, r.now)
	})
	c.addHeirs(d)
	for _, e := range d.pods.old {
		c.removePod(e)
	}
	for _, n := range d.sets.old {
		c.removeSet(n)
	}
	for _, e := range d.slices.old {
		c.removeSlice(e)
	}
	for _, p := range d.policies.old {
		c.removePolicy(p)
	}
	for _, n := range d.namespaces.old {
		delete(c.namespaces, n.Name)
		c.out.RemoveNamespace(n.Name)
	}
	for _, n := range d.namespaces.now {
		c.addNamespace(n)
	}
	for _, a := range d.accounts.old {
		delete(c.serviceAccounts, accountKey{a.Namespace, a.Name})
		c.out.RemoveAccount(a.Namespace, a.Name)
	}
	for _, a := range d.accounts.now {
		c.addAccount(a)
	}
	for _, p := range c.counted(d.policies.now) {
		c.addPolicy(p)
	}
	for _, e := range d.slices.now {
		c.addSlice(e)
	}
	for _, e := range d.pods.now {
		c.addPod(e)
	}
	for _, n := range d.sets.now {
		c.addSet(n)
	}
}

// addHeirs adds to the changes whoever inherits labels from what changed: it is taken out
// and put back.
func (c *Compiler) addHeirs(d *delta) {
	if len(d.namespaces.old)+len(d.namespaces.now)+len(d.accounts.old)+len(d.accounts.now) == 0 {
		return
	}
	touched := make(map[string]bool)
	for _, n := range slices.Concat(d.namespaces.old, d.namespaces.now) {
		touched[n.Name] = true
	}
	accounts := make(map[accountKey]bool)
	for _, a := range slices.Concat(d.accounts.old, d.accounts.now) {
		accounts[accountKey{a.Namespace, a.Name}] = true
	}
	for key := range accounts {
		againPods(&d.pods, c.podsIn[key.namespace], func(e *policy.Endpoint) bool { return e.ServiceAccount == key.name })
		c.forgetIdentities(key.namespace, func(id *identity) bool {
			account, _ := id.Get(serviceAccountLabel)
			return account == key.name
		})
	}
	for name := range touched {
		againPods(&d.pods, c.podsIn[name], func(*policy.Endpoint) bool { return true })
		again(&d.sets, maps.Keys(c.setsIn[name]))
		c.forgetIdentities(name, func(*identity) bool { return true })
	}
}

// commit brings everything that changes touched to where the Builder has it.
func (c *Compiler) commit() error {
	if c.failed != nil {
		return c.failed
	}
	c.planEndpoints()
	c.planHosts()
	if err := c.classify(); err != nil {
		return err
	}
	c.weigh()
	c.spreadTerms()
	c.describeClasses()
	c.dropUnused()
	c.out.SetEndpoints(c.pods)
	return nil
}

// problems gives what is known to be wrong, in the order of objects.
func (c *Compiler) problems() []policy.Problem {
	out := slices.Concat(c.fixed, c.hostNotes)
	for _, list := range c.notes {
		out = append(out, list...)
	}
	out = append(out, c.conflicts()...)
	slices.SortStableFunc(out, func(a, b policy.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.Kind, b.Object.Kind), cmp.Compare(a.Object.Namespace, b.Object.Namespace), cmp.Compare(a.Object.Name, b.Object.Name),
			cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return out
}

func problem(object policy.Key, field, format string, args ...any) policy.Problem {
	return policy.Problem{Object: object, Field: field, Message: fmt.Sprintf(format, args...)}
}

func namespaceKey(n *policy.Namespace) policy.Key {
	return policy.Key{Kind: policy.NamespaceKind, Name: n.Name}
}

func accountObjectKey(a *policy.ServiceAccount) policy.Key {
	return policy.Key{Kind: policy.ServiceAccountKind, Namespace: a.Namespace, Name: a.Name}
}

func setKey(s *policy.NetworkSet) policy.Key {
	return policy.Key{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
}

func sliceKey(s *policy.EndpointSlice) policy.Key {
	return policy.Key{Kind: policy.EndpointSliceKind, Namespace: s.Namespace, Name: s.Name}
}

// same tells without looking at the elements whether two slices are one.
func same[T any](a, b []*T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// differences gives what is in only one of two lists of objects. Lists in the
// order of their keys are compared in one pass. In others, an object of both may
// be given twice, as removed and as added, which is true as well if what is
// removed goes first.
func differences[T any](old, now []*T, key func(*T) policy.Key) (p pair[T]) {
	if same(old, now) {
		return p
	}
	for len(old) > 0 && len(now) > 0 {
		if old[0] == now[0] {
			old, now = old[1:], now[1:]
			continue
		}
		order := compareKeys(key(old[0]), key(now[0]))
		if order <= 0 {
			p.old, old = append(p.old, old[0]), old[1:]
		}
		if order >= 0 {
			p.now, now = append(p.now, now[0]), now[1:]
		}
	}
	return pair[T]{append(p.old, old...), append(p.now, now...)}
}

// compareKeys orders as the slices of a Snapshot are.
func compareKeys(a, b policy.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
}

// again lists objects as removed and added, unless they are removed anyway.
func again[T any](p *pair[T], objects iter.Seq[*T]) {
	gone := make(map[*T]bool, len(p.old))
	for _, o := range p.old {
		gone[o] = true
	}
	for o := range objects {
		if !gone[o] {
			p.old, p.now = append(p.old, o), append(p.now, o)
		}
	}
}

// againPods is again for the pods that which tells.
func againPods(p *pair[policy.Endpoint], pods []*pod, which func(*policy.Endpoint) bool) {
	again(p, func(yield func(*policy.Endpoint) bool) {
		for _, pod := range pods {
			if which(pod.endpoint) && !yield(pod.endpoint) {
				return
			}
		}
	})
}

// plain tells whether packets carry such an address to a decision. IPv4-mapped
// ones do not, nor do those with a zone, which mean nothing off their link.
func plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }
