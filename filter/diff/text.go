package diff

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// describe names identities, by namespace or account where it is all of them.
func (c *comparison) describe(ids []int) (out []string) {
	chosen := make(map[string]int) // by scope
	for _, i := range ids {
		for _, s := range c.ids[i].scopes() {
			chosen[s]++
		}
	}
	said := make(map[string]bool)
	for _, i := range ids {
		text := c.ids[i].text()
		for _, s := range c.ids[i].scopes() {
			if chosen[s] == c.scopes[s] {
				text = s
				break
			}
		}
		if !said[text] {
			said[text] = true
			out = append(out, text)
		}
	}
	return out
}

// scopes names the wholes that an identity is part of, the widest first.
func (id *Identity) scopes() []string {
	if !id.isPod() {
		return []string{"every address that is no pod's"}
	}
	return []string{"every pod", "every pod of namespace " + id.Namespace, id.account()}
}

func (id *Identity) account() string {
	if id.ServiceAccount == "" {
		return "pods of namespace " + id.Namespace + " without account"
	}
	return "account " + id.Namespace + "/" + id.ServiceAccount
}

func (id *Identity) text() string {
	if !id.isPod() {
		var out []string
		for _, r := range id.Regions {
			out = append(out, r.text())
		}
		return listText(out, 4)
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(id.Labels)) {
		labels = append(labels, k+"="+id.Labels[k])
	}
	text := id.account()
	if len(labels) > 0 {
		text += " with " + strings.Join(labels, ",")
	}
	return text + ": " + listText(id.Pods, 3)
}

func (r Region) text() string {
	switch {
	case r.Prefix.Bits() == 0 && len(r.Except) == 0:
		return "every " + familyNames[family(r.Prefix.Addr())] + " address that is no pod's"
	case r.Prefix.Bits() == 0:
		return "every other " + familyNames[family(r.Prefix.Addr())] + " address"
	case r.Prefix.IsSingleIP():
		return r.Prefix.Addr().String()
	case len(r.Except) == 0:
		return r.Prefix.String()
	case len(r.Except) <= 3:
		return r.Prefix.String() + " except " + joinText(r.Except, " ")
	default:
		return "the rest of " + r.Prefix.String()
	}
}

func joinText(list []netip.Prefix, sep string) string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, sep)
}

func listText(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}

func (s Side) text() string {
	verdict := map[string]string{"allow": "allowed", "deny": "denied"}[s.Verdict] + " at " + s.Direction
	switch {
	case s.Rule != nil:
		return verdict + " by " + s.Rule.String()
	case s.Reason == "end-of-tier":
		return verdict + ": no rule of tier " + s.Tier + " matches"
	case s.Reason == "profile":
		return verdict + ": no policy decides"
	case s.Reason == "no-profile":
		return verdict + ": no policy decides, and the namespace is not known"
	case s.Reason == "address-conflict":
		return verdict + ": two pods claim the address"
	}
	return verdict + ": " + s.Reason
}

// safe takes out what a name in a manifest could do to a terminal or to the lines
// of a report.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// Text prints the report for people.
func (r *Report) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, kind := range []struct{ now, title string }{{"allow", "now allowed"}, {"deny", "now denied"}} {
		n := 0
		for i := range r.Changes {
			if r.Changes[i].Now != kind.now {
				continue
			}
			if n++; n == 1 {
				fmt.Fprintf(b, "%s\n\n", kind.title)
			}
			r.Changes[i].write(b)
		}
	}
	for _, alone := range []struct {
		title string
		ids   []*Identity
	}{{"only before, not compared", r.OnlyBefore}, {"only after, not compared", r.OnlyAfter}} {
		if len(alone.ids) == 0 {
			continue
		}
		fmt.Fprintf(b, "%s\n\n", alone.title)
		for _, id := range alone.ids {
			fmt.Fprintf(b, "  %s\n", safe(id.text()))
		}
		fmt.Fprintln(b)
	}
	if len(r.Changes) == 0 {
		fmt.Fprint(b, "no verdict changes")
	} else {
		fmt.Fprintf(b, "%d %s", len(r.Changes), plural(len(r.Changes), "change", "changes"))
	}
	fmt.Fprintf(b, " between %d identities: %d of %d pairs could differ, %d decisions\n", len(r.Identities), r.PairsDecided, r.Pairs, r.Decisions)
	return b.Flush()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func (c *Change) write(w io.Writer) {
	field := func(name string, lines ...string) {
		for _, l := range lines {
			fmt.Fprintf(w, "  %-5s %s\n", name, safe(l))
			name = ""
		}
	}
	field("from", c.FromText...)
	field("to", c.ToText...)
	field("on", c.TrafficText)
	field("was", c.Before.text())
	field("is", c.After.text())
	field("e.g.", c.Example.From+" -> "+c.Example.To)
	fmt.Fprintln(w)
}
