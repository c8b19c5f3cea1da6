package diff

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// group is what is found of one reason and traffic.
type group struct {
	why
	text    string
	traffic []Traffic
	found   []*found
}

// merge puts together what changes alike.
func (c *comparison) merge(all []found) []Change {
	type key struct {
		why
		text string
	}
	// The same text can stand for more in another family: what is not tcp is ICMP
	// in one and ICMPv6 in the other. So texts join traffic, which is joined too.
	type rendered struct {
		text    string
		traffic []Traffic
	}
	cache := make(map[key]rendered)
	index := make(map[key]*group)
	var groups []*group
	for i := range all {
		f := &all[i]
		families := [2]bool{c.meet(f.from, f.to, 0), c.meet(f.from, f.to, 1)}
		cacheKey := key{f.why, fmt.Sprint(families, f.cells)}
		r, known := cache[cacheKey]
		if !known {
			r.text, r.traffic = c.render(f.cells, families)
			cache[cacheKey] = r
		}
		k := key{f.why, r.text}
		if index[k] == nil {
			index[k] = &group{why: f.why, text: r.text}
			groups = append(groups, index[k])
		}
		if !known {
			index[k].traffic = union(index[k].traffic, r.traffic)
		}
		index[k].found = append(index[k].found, f)
	}
	out := []Change{}
	for _, g := range groups {
		for _, r := range rectangles(g.found) {
			out = append(out, c.change(g, r))
		}
	}
	slices.SortStableFunc(out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Now, b.Now), slices.Compare(a.To, b.To), slices.Compare(a.From, b.From), cmp.Compare(a.TrafficText, b.TrafficText))
	})
	return out
}

// union appends what list lacks.
func union(list, more []Traffic) []Traffic {
	for _, t := range more {
		if !slices.ContainsFunc(list, func(o Traffic) bool { return reflect.DeepEqual(o, t) }) {
			list = append(list, t)
		}
	}
	return list
}

// rectangle is every pair of some senders and some receivers.
type rectangle struct {
	from, to []int
	example  *found
}

// rectangles covers pairs, joined by sender or by receiver, whichever gives fewer.
func rectangles(list []*found) []rectangle {
	byTo := fold(list, func(f *found) (int, int) { return f.to, f.from })
	byFrom := fold(list, func(f *found) (int, int) { return f.from, f.to })
	if len(byTo) <= len(byFrom) {
		for i := range byTo {
			byTo[i].from, byTo[i].to = byTo[i].to, byTo[i].from
		}
		return byTo
	}
	return byFrom
}

// fold joins the first members of pairs that have the same second members. Each
// rectangle has the first as from and the second as to.
func fold(list []*found, split func(*found) (first, second int)) (out []rectangle) {
	seconds, example := make(map[int][]int), make(map[int]*found)
	var order []int
	for _, f := range list {
		first, second := split(f)
		if example[first] == nil {
			example[first] = f
			order = append(order, first)
		}
		seconds[first] = append(seconds[first], second)
	}
	slices.Sort(order)
	index := make(map[string]int)
	for _, first := range order {
		set := seconds[first]
		slices.Sort(set)
		key := fmt.Sprint(set)
		i, known := index[key]
		if !known {
			i = len(out)
			index[key] = i
			out = append(out, rectangle{to: set, example: example[first]})
		}
		out[i].from = append(out[i].from, first)
	}
	return out
}

func (c *comparison) change(g *group, r rectangle) Change {
	tuples := c.first(r.example)
	out := Change{
		Now: "allow", From: r.from, To: r.to, Traffic: g.traffic, TrafficText: g.text,
		FromText: c.describe(r.from), ToText: c.describe(r.to),
		Before: g.side(0), After: g.side(1),
		Example: Example{
			From: c.example(r.example.from, tuples[1]), To: c.example(r.example.to, tuples[1].Reverse()),
			Before: explain.Tuple(tuples[0]), After: explain.Tuple(tuples[1]),
		},
	}
	if g.denied {
		out.Now = "deny"
	}
	return out
}

// example names the sender of a flow of the identity.
func (c *comparison) example(i int, t flow.Tuple) string {
	if !c.ids[i].isPod() {
		return t.Src.String()
	}
	if ep, ok := c.engines[1].Endpoint(t.Src); ok {
		return ep.Namespace + "/" + ep.Name
	}
	return c.ids[i].Pods[0]
}

func (w *why) side(side int) Side {
	s := Side{Verdict: filter.Accept.String(), Direction: w.dir.String(), Reason: w.reason[side].String()}
	if w.denied == (side == 1) {
		s.Verdict = filter.Drop.String()
	}
	info := w.info[side]
	s.Tier = info.Tier
	if info.Name != "" {
		s.Rule = &explain.RuleRef{
			Tier: info.Tier, Kind: policy.Kind(info.Kind), Namespace: info.Namespace, Name: info.Name,
			Direction: info.Direction.String(), Index: info.Index, Action: info.Action.String(),
		}
	}
	return s
}
