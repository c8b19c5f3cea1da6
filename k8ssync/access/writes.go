package access

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/postern-project/postern/filter/policy"
)

// plurals are the resources of kinds of policy.
var plurals = map[policy.Kind]string{
	policy.NetworkPolicy: "networkpolicies", policy.GlobalNetworkPolicy: "globalnetworkpolicies", policy.KubernetesNetworkPolicy: "networkpolicies",
	policy.KubernetesClusterNetworkPolicy: "clusternetworkpolicies", policy.StagedNetworkPolicy: "stagednetworkpolicies",
	policy.StagedGlobalNetworkPolicy: "stagedglobalnetworkpolicies", policy.StagedKubernetesNetworkPolicy: "stagedkubernetesnetworkpolicies",
}

// resource is where the API server has policies of a kind.
func (o *Objects) resource(k policy.Kind) group {
	switch k {
	case policy.KubernetesNetworkPolicy:
		return group{"networking.k8s.io", plurals[k]}
	case policy.KubernetesClusterNetworkPolicy:
		return group{"policy.networking.k8s.io", plurals[k]}
	default:
		return group{o.calico(), plurals[k]}
	}
}

// tiered tells whether the guard of tiers asks about a resource.
func tiered(g group) bool { return g.group == calicoGroup || g.group == "crd.projectcalico.org" }

// guarded adds what the guard of tiers asks for, if it is on: a verb on policies in
// tiers, and to get these. The verb may be given by the policy's name, or in each tier.
func (o *Objects) guarded(g group, alternatives [][]Right, namespace, name, verb string, tiers ...string) [][]Right {
	if !o.TierGuard.On() || !tiered(g) {
		return alternatives
	}
	var see, in []Right
	for _, t := range tiers {
		see = append(see, Right{"get", calicoGroup, "tiers", "", t})
		in = append(in, Right{verb, calicoGroup, "tier." + g.resource, namespace, t + ".*"})
	}
	byName := Right{verb, calicoGroup, "tier." + g.resource, namespace, name}
	return append(with(with(alternatives, see...), in...), with(with(alternatives, see...), byName)...)
}

// writer adds the ways to write policy that decides for pods of namespaces.
type writer struct {
	o          *Objects
	list       *list
	namespaces []string
	tiers      []string // in which it would decide
	kubernetes bool     // Kubernetes' own policy would
	not        policy.Key
	what       string
}

// write adds the ways to write a policy that is new, and to change one that is there.
func (w *writer) write() {
	var places []Place
	for _, ns := range w.namespaces {
		places = append(places, Place{Namespace: ns})
	}
	for _, k := range []struct {
		kind   policy.Kind
		at     string
		places []Place
	}{{policy.NetworkPolicy, here, places}, {policy.GlobalNetworkPolicy, "", cluster}} {
		g := w.o.resource(k.kind)
		if !w.o.TierGuard.On() {
			w.list.add("", w.what, k.places, g.write(k.at)...)
			continue
		}
		for _, t := range w.tiers {
			what := fmt.Sprintf("%s, in tier %s", w.what, t)
			w.list.add("", what, k.places, w.o.guarded(g, g.create(k.at), k.at, some, "create", t)...)
		}
		w.change(k.kind, g)
	}
	if g := w.o.resource(policy.KubernetesNetworkPolicy); w.kubernetes {
		w.list.add("", w.what, places, g.write(here)...)
	}
	if slices.Contains(w.tiers, policy.AdminTier) || slices.Contains(w.tiers, policy.BaselineTier) {
		w.list.add("", w.what, cluster, w.o.resource(policy.KubernetesClusterNetworkPolicy).write("")...)
	}
}

// change adds the ways to change policies that are there, where the guard asks for
// their names and tiers: one in a later tier has to move to one that decides.
func (w *writer) change(kind policy.Kind, g group) {
	in := map[string][]Place{}
	for _, p := range w.o.Snapshot.Policies {
		if p.Kind == kind && p.Key() != w.not && (p.Namespace == "" || slices.Contains(w.namespaces, p.Namespace)) {
			in[p.Tier] = append(in[p.Tier], Place{Namespace: p.Namespace, Name: p.Name})
		}
	}
	at := here
	if kind == policy.GlobalNetworkPolicy {
		at = ""
	}
	for from, places := range in {
		tiers := w.tiers
		if slices.Contains(w.tiers, from) {
			tiers = []string{from}
		}
		for _, to := range tiers {
			both := []string{to}
			if from != to {
				both = append(both, from)
			}
			what := fmt.Sprintf("%s, in tier %s", w.what, to)
			w.list.add("", what, places, w.o.guarded(g, g.on(at, here, "update", "patch"), at, here, "update", both...)...)
		}
	}
}

// moveTiers adds the ways to change in which order tiers decide, and what they do at
// their end. Those that are built in stay as they are.
func (w *writer) moveTiers() {
	tiers := group{w.o.calico(), "tiers"}
	var places []Place
	for _, t := range w.o.Snapshot.Tiers {
		if !slices.Contains([]string{policy.DefaultTier, policy.AdminTier, policy.BaselineTier}, t.Name) {
			places = append(places, Place{Name: t.Name})
		}
	}
	const what = "change, move or remove a tier"
	w.list.add("", what, places, tiers.on("", here, "update", "patch", "delete")...)
	w.list.add("", what, places[:min(1, len(places))], tiers.on("", "", "deletecollection")...)
	// In a tier of its own a policy decides first.
	for _, kind := range []policy.Kind{policy.NetworkPolicy, policy.GlobalNetworkPolicy} {
		g, at, in := w.o.resource(kind), "", cluster
		if kind == policy.NetworkPolicy {
			at, in = here, nil
			for _, ns := range w.namespaces {
				in = append(in, Place{Namespace: ns})
			}
		}
		makes := [][]Right{{{"create", tiers.group, tiers.resource, "", ""}}, {{"create", tiers.group, tiers.resource, "", some}, {"patch", tiers.group, tiers.resource, "", some}}}
		for _, tier := range makes {
			alternatives := with([][]Right{{{"create", g.group, g.resource, at, ""}}}, tier...)
			w.list.add("", "make a tier that decides first, and write policy in it", in, w.o.guarded(g, alternatives, at, some, "create", some)...)
		}
	}
}

// writeWays adds the ways to the outcome of a policy's rules by writing policy: the
// policy itself, and others that would decide for pods of the namespaces.
func writeWays(o *Objects, l *list, p *policy.Policy, rules []Rule, namespaces []Place) {
	g := o.resource(p.Kind)
	at := here
	if p.Namespace == "" {
		at = ""
	}
	tier := p.Tier
	if p.Kind == policy.StagedKubernetesNetworkPolicy {
		tier = policy.DefaultTier
	}
	place := []Place{{Namespace: p.Namespace, Name: p.Name}}
	l.add("", "change the rule's policy", place, o.guarded(g, g.on(at, here, "update", "patch"), at, here, "update", tier)...)
	removes := append(g.on(at, here, "delete"), g.on(at, "", "deletecollection")...)
	l.add("", "remove the rule's policy", place, o.guarded(g, removes, at, here, "delete", tier)...)
	l.add("", "take away the kind of the rule's policy, and all of it", []Place{{Name: g.resource + "." + g.group}},
		group{"apiextensions.k8s.io", "customresourcedefinitions"}.on("", here, "update", "patch", "delete")...)

	w := writer{o: o, list: l, not: p.Key(), what: "write policy that decides before it"}
	for _, ns := range namespaces {
		w.namespaces = append(w.namespaces, ns.Namespace)
	}
	denies := !slices.ContainsFunc(rules, func(r Rule) bool { return r.Action == policy.Allow || r.Action == policy.Pass })
	if !denies {
		w.what = "write policy that allows it to others"
	}
	w.tiers = deciding(o.Snapshot, p, !denies)
	// Kubernetes' own policy is in tier default with one order, and only allows.
	const kubernetesOrder = 1000
	w.kubernetes = slices.Contains(w.tiers, policy.DefaultTier) && !(denies && p.Tier == policy.DefaultTier && p.Order < kubernetesOrder)
	w.write()
	w.moveTiers()
}

// deciding lists the tiers in which another policy could decide instead: the policy's
// own and those before it. Allowing what nobody denies works in later ones too, as
// long as the packet gets there.
func deciding(s *policy.Snapshot, p *policy.Policy, later bool) (names []string) {
	tiers := slices.Clone(s.Tiers)
	slices.SortFunc(tiers, func(a, b policy.Tier) int { return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name)) })
	passes := map[string]bool{}
	for _, q := range s.Policies {
		for _, r := range slices.Concat(q.Ingress, q.Egress) {
			passes[q.Tier] = passes[q.Tier] || r.Action == policy.Pass
		}
	}
	reached := false
	for _, t := range tiers {
		if reached && !later {
			break
		}
		names = append(names, t.Name)
		reached = reached || t.Name == p.Tier
		later = later && (!reached || t.DefaultAction == policy.Pass || passes[t.Name])
	}
	if !reached { // a tier without object comes last
		names = append(names, p.Tier)
	}
	return names
}

// unique leaves out ways that are there already, and places that a way is given twice.
func unique(ways []Way) (out []Way) {
	index := map[string]int{}
	for _, w := range ways {
		key := fmt.Sprintf("%q", append([]string{w.Side, w.What}, rightKeys(w.Rights)...))
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, Way{What: w.What, Side: w.Side, Rights: w.Rights})
		}
		out[i].Places = append(out[i].Places, w.Places...)
	}
	for i := range out {
		seen := map[Place]bool{}
		out[i].Places = slices.DeleteFunc(out[i].Places, func(p Place) bool {
			was := seen[p]
			seen[p] = true
			return was
		})
	}
	return out
}

func rightKeys(rights []Right) (keys []string) {
	for _, r := range rights {
		keys = append(keys, r.Verb, r.Group, r.Resource, r.Namespace, r.Name)
	}
	return keys
}
