package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Right is a verb on a resource, as a SubjectAccessReview asks for it. An empty
// Namespace is the cluster. In a Way it may have marks in the place of names.
type Right struct {
	Verb, Group, Resource, Namespace, Name string
}

// Marks. No name of an object has control characters.
const (
	here = "\x01" // the namespace, or the name, of the place
	role = "\x02" // the role of the place
	// some is any name, one for all rights of the way: of an object that need not be
	// known. Before or behind it may stand text.
	some = "\x03"
	// inNamespace is the namespace of the place, as a name.
	inNamespace = "\x06"
	// fresh is what some stands for where a right is not limited to names.
	fresh = "\x04"
	// newNamespace is one that is not there yet, so no RoleBinding is in it.
	newNamespace = "\x05"
)

// String is "verb resource.group/name in namespace".
func (r Right) String() string {
	s := r.Verb + " " + r.Resource
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Name != "" && !strings.ContainsAny(r.Name, here+role+some+fresh+inNamespace) {
		s += "/" + r.Name
	}
	switch r.Namespace {
	case "", here:
	case newNamespace:
		s += " in every namespace"
	default:
		s += " in " + r.Namespace
	}
	return s
}

// Place is an object or a namespace that a way leads through.
type Place struct{ Namespace, Name, Role string }

// String is "namespace/name", one of them, or nothing.
func (p Place) String() string {
	if p.Namespace == newNamespace {
		return ""
	}
	return strings.Trim(p.Namespace+"/"+p.Name, "/")
}

// at puts a place, and a name for some, into a right.
func (r Right) at(p Place, name string) Right {
	if r.Namespace == here {
		r.Namespace = p.Namespace
	}
	r.Name = strings.NewReplacer(here, p.Name, inNamespace, p.Namespace, role, p.Role, some, name).Replace(r.Name)
	return r
}

// Way is one thing that leads to an access, at any of its Places. Its rights are
// needed together.
type Way struct {
	// What is done, and why that leads to the access.
	What string
	// Side is "source" or "destination" if it is about the one or the other end of a
	// rule.
	Side   string
	Rights []Right
	Places []Place
}

// Found is that a subject may go a way.
type Found struct {
	Subject Subject `json:"subject"`
	What    string  `json:"what"`
	Side    string  `json:"side,omitempty"`
	// Rights that it has for this, all of which are needed; and At which objects, or in
	// which namespaces, if there are several.
	Rights []string `json:"rights"`
	At     []string `json:"at,omitempty"`
	// Through are the bindings that give the rights.
	Through []string `json:"through"`
	// OfCluster: the subject is a part of Kubernetes itself, with the bindings that the
	// API server makes for it.
	OfCluster bool `json:"ofCluster,omitempty"`
}

// Find tells who could go each of the ways, by subjects as bindings name them: the
// members of a group are not known here, but for the groups that every service account
// or every user is in. The order is that of subjects, then ways.
func Find(o *Objects, ways []Way) []Found {
	all := o.grants()
	var found []Found
	for subject, own := range all {
		f := finder{subject: subject, own: own, known: map[Right][]scope{}}
		for _, g := range subject.groups() {
			f.groups = append(f.groups, all[g]...)
		}
		for i := range ways {
			found = append(found, f.way(&ways[i])...)
		}
	}
	sortFound(found)
	return found
}

// minimal leaves out what needs all rights of another way to the same, and more; and of
// a right in a tier that is given by names of policies what is given for all of the tier.
func minimal(found []Found) (out []Found) {
	forTier := func(a, b string) bool {
		verb, name, _ := strings.Cut(a, " tier.")
		return a == b || strings.Contains(a, ".* ") && strings.HasPrefix(b, verb+" tier."+strings.SplitN(name, "/", 2)[0])
	}
	type key struct{ subject, side, what, at string }
	of := map[key][]Found{}
	keyOf := func(f *Found) key {
		return key{f.Subject.String(), f.Side, f.What, strings.Join(f.At, " ")}
	}
	for i := range found {
		k := keyOf(&found[i])
		of[k] = append(of[k], found[i])
	}
	known := map[string]bool{}
	for i := range found {
		f := &found[i]
		whole := fmt.Sprintf("%#v", *f)
		if known[whole] {
			continue // names that are not printed were different
		}
		known[whole] = true
		if !slices.ContainsFunc(of[keyOf(f)], func(g Found) bool {
			if len(g.Rights) == len(f.Rights) && !slices.Equal(g.Rights, f.Rights) {
				for i := range f.Rights {
					if !forTier(g.Rights[i]+" ", f.Rights[i]+" ") {
						return false
					}
				}
				return true
			}
			return len(g.Rights) < len(f.Rights) && !slices.ContainsFunc(g.Rights, func(r string) bool { return !slices.Contains(f.Rights, r) })
		}) {
			out = append(out, *f)
		}
	}
	return out
}

func sortFound(found []Found) {
	slices.SortFunc(found, func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Subject.String(), b.Subject.String()), cmp.Compare(a.Side, b.Side), cmp.Compare(a.What, b.What),
			slices.Compare(a.Rights, b.Rights), slices.Compare(a.At, b.At), slices.Compare(a.Through, b.Through))
	})
}

// finder looks for the ways of one subject.
type finder struct {
	subject     Subject
	own, groups []grant
	known       map[Right][]scope // by right without place
}

func (f *finder) scopes(r Right) []scope {
	r.Namespace, r.Name = "", ""
	s, ok := f.known[r]
	if !ok {
		s = append(scopes(f.own, r, false), scopes(f.groups, r, true)...)
		f.known[r] = s
	}
	return s
}

// way gives what the subject may do of a way: one Found for all places that the same
// bindings lead to.
func (f *finder) way(w *Way) (found []Found) {
	rights := w.Rights
	if f.subject.exempt() {
		rights = slices.DeleteFunc(slices.Clone(rights), func(r Right) bool { return r.Verb == "use" })
	}
	of := make([][]scope, len(rights))
	for i, r := range rights {
		if of[i] = f.scopes(r); len(of[i]) == 0 {
			return nil
		}
	}
	type hit struct {
		through []string
		places  []Place
		name    string
		builtIn bool
	}
	var hits []hit
	names := candidates(rights, of)
	for _, p := range w.Places {
		for _, name := range names {
			through, builtIn := give(rights, of, p, name)
			if through == nil {
				continue
			}
			i := slices.IndexFunc(hits, func(h hit) bool { return h.name == name && slices.Equal(h.through, through) })
			if i < 0 {
				i, hits = len(hits), append(hits, hit{through: through, name: name, builtIn: builtIn})
			}
			hits[i].places = append(hits[i].places, p)
			break
		}
	}
	for _, h := range hits {
		one := Found{Subject: f.subject, What: w.What, Side: w.Side, Through: h.through, OfCluster: h.builtIn && f.subject.ofCluster()}
		for _, r := range rights {
			if len(h.places) == 1 {
				r = r.at(h.places[0], h.name)
			} else if h.name != fresh {
				r.Name = strings.ReplaceAll(r.Name, some, h.name)
			}
			one.Rights = append(one.Rights, r.String())
		}
		if len(h.places) > 1 {
			for _, p := range h.places {
				one.At = append(one.At, p.String())
			}
		}
		found = append(found, one)
	}
	return found
}

// give tells through which bindings all rights are given at a place; nil if they are
// not, or not by anything that is the subject's own.
func give(rights []Right, of [][]scope, p Place, name string) (through []string, builtIn bool) {
	own, builtIn := false, true
	for i, r := range rights {
		r = r.at(p, name)
		n := slices.IndexFunc(of[i], func(s scope) bool { return s.covers(r.Namespace, r.Name) })
		if n < 0 {
			return nil, false
		}
		own, builtIn = own || !of[i][n].inherited, builtIn && of[i][n].builtIn
		if t := of[i][n].through; !slices.Contains(through, t) {
			through = append(through, t)
		}
	}
	if !own {
		return nil, false
	}
	return through, builtIn
}

// candidates are the names that some may stand for: those that the scopes are limited
// to, after one that nobody has named.
func candidates(rights []Right, of [][]scope) []string {
	names := []string{fresh}
	for i, r := range rights {
		before, behind, ok := strings.Cut(r.Name, some)
		if !ok {
			continue
		}
		for _, s := range of[i] {
			for _, n := range s.names {
				n, ok1 := strings.CutPrefix(n, before)
				n, ok2 := strings.CutSuffix(n, behind)
				// No object has a star in its name, though the rights to a tier do.
				if ok1 && ok2 && n != "" && !strings.Contains(n, "*") && !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
		}
	}
	return names
}
