package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/nft"
)

// hooks judges what tables of others do before and after postern's.
func (j *judge) hooks() {
	if j.SurveyErr != nil {
		j.add("tables", Fail, "other tables could not be read: "+j.SurveyErr.Error(), "it is not known what works against policy", "run as root in the host's network namespace")
		return
	}
	s := &j.Survey
	j.order()
	for _, b := range s.Bases {
		switch {
		case b.Drops && routed(b.Family):
			j.add("tables.policy", Info, fmt.Sprintf("%s (hook %s) drops what none of its rules accepts", b.Place, b.Hook), "it can drop what policy allows, and postern does not see that", "")
		case b.Family == "netdev":
			j.add("tables.netdev", Warn, fmt.Sprintf("%s is called at %s of a device", b.Place, b.Hook), "it can send packets on before they are routed, and then no policy sees them", "look at it: nft list chain "+b.Place.String())
		}
	}
	j.offloads()
	if len(s.Untracked) > 0 {
		j.add("tables.notrack", Warn, "rules keep packets from conntrack: "+places(s.Untracked),
			"such packets have no flow that a verdict could be remembered in: answers are judged like questions", "narrow those rules to traffic of no protected pod")
	}
	if len(j.Legacy) > 0 {
		j.add("tables.legacy", Info, "iptables-legacy has tables: "+strings.Join(j.Legacy, ", "), "their rules cannot be read here: whether they use postern's marks or queues is not known", "look at them: iptables-legacy-save")
	}
	for _, p := range slices.SortedFunc(maps.Keys(s.Unread), func(a, b nft.Place) int { return cmp.Compare(a.String(), b.String()) }) {
		j.add("tables.unread", Info, fmt.Sprintf("the rules of %s could not be read: %v", p, s.Unread[p]), "whether they use postern's marks or queues is not known", "look at them: nft list ruleset")
	}
}

// order tells who is called before postern and who after it, hook by hook.
func (j *judge) order() {
	ours := []struct {
		hook     string
		priority int
	}{
		{"prerouting", nft.RawPriority}, {"input", nft.InputPriority}, {"output", nft.RawPriority}, {"postrouting", nft.PostroutingPriority},
	}
	var lines []string
	for _, o := range ours {
		var before, after []string
		for _, b := range slices.SortedStableFunc(slices.Values(j.Survey.Bases), func(a, b nft.Base) int { return cmp.Compare(a.Priority, b.Priority) }) {
			if b.Hook != o.hook || !routed(b.Family) {
				continue
			}
			if text := fmt.Sprintf("%s (%d)", b.Place, b.Priority); b.Priority <= o.priority {
				before = append(before, text)
			} else {
				after = append(after, text)
			}
			if o.hook == "postrouting" && b.Type == "nat" && b.Priority <= o.priority {
				j.add("tables.nat", Fail, fmt.Sprintf("%s translates sources at priority %d, before postern decides at %d", b.Place, b.Priority, o.priority),
					"postern sees the translated address and not who sent the packet", "move that chain behind: priority srcnat (100)")
			}
		}
		if len(before)+len(after) > 0 {
			lines = append(lines, fmt.Sprintf("%s: %s", o.hook, strings.Join(slices.Concat(before, []string{fmt.Sprintf("postern (%d)", o.priority)}, after), ", ")))
		}
	}
	if len(lines) == 0 {
		j.ok("tables", "no other table at the hooks where postern works")
		return
	}
	j.add("tables", Info, strings.Join(lines, "; "), "they are called in this order; any of them can drop what policy allows, and none lets pass what postern drops", "")
}

// routed tells whether chains of a family see the packets that postern judges.
func routed(family string) bool { return family == "ip" || family == "ip6" || family == "inet" }

func (j *judge) offloads() {
	s := &j.Survey
	switch {
	case len(s.Offloads) > 0:
		j.add("tables.offload", Fail, "rules put flows into a flowtable: "+places(s.Offloads),
			"flows that were accepted once go past all hooks: what a change of policy denies is not stopped until the flow ends", "take pods' addresses out of those rules")
	case len(s.Flowtables) > 0:
		j.add("tables.offload", Info, "there are flowtables, and no rule uses them: "+places(s.Flowtables), "", "")
	default:
		j.ok("tables.offload", "no flowtable")
	}
}

// clash is a chain that uses postern's bits in one way.
type clash struct {
	nft.Place
	flow, writes bool
}

// marks judges who else uses the bits that are postern's.
func (j *judge) marks() {
	const do = "choose other bits with --mark-mask, or give the other program a mask without these"
	if _, err := nft.NewMarks(j.Mask); err != nil {
		j.add("marks", Fail, err.Error(), "postern does not start", "give --mark-mask at least 6 bits in a row")
		return
	}
	bits := map[clash]uint32{}
	var clashes []clash
	for _, m := range j.Survey.Marks {
		if m.Bits&j.Mask == 0 {
			continue
		}
		c := clash{m.Place, m.Flow, m.Writes}
		if bits[c] == 0 {
			clashes = append(clashes, c)
		}
		bits[c] |= m.Bits
	}
	for _, c := range clashes {
		what := "packet mark"
		if c.flow {
			what = "conntrack mark"
		}
		if c.writes {
			j.add("marks.written", Fail, fmt.Sprintf("%s changes bits %#x of the %s, and postern's are %#x", c.Place, bits[c], what, j.Mask),
				"a flow that policy denied can be taken for one that it accepted, or the other way round", do)
		} else {
			j.add("marks.read", Warn, fmt.Sprintf("%s compares bits %#x of the %s, and postern's are %#x", c.Place, bits[c], what, j.Mask),
				"that rule takes postern's marks for its own, or does not find its own beside them", do)
		}
	}
	if j.RulesErr != nil {
		j.add("marks.routing", Info, j.RulesErr.Error(), "whether routing looks at postern's marks is not known", "look: ip rule")
	}
	n := len(clashes)
	for _, r := range j.Rules {
		if r.Mask&j.Mask != 0 {
			n++
			j.add("marks.routing", Warn, r.Text, fmt.Sprintf("it compares bits that are postern's (%#x): packets that carry postern's marks are not found by it", j.Mask),
				"give the rule a mask (fwmark VALUE/MASK), or choose other bits with --mark-mask")
		}
	}
	if n == 0 {
		j.ok("marks", "nobody else uses bits %#x of marks", j.Mask)
	}
}

func places(list []nft.Place) string {
	var texts []string
	for _, p := range list {
		if t := p.String(); !slices.Contains(texts, t) {
			texts = append(texts, t)
		}
	}
	return strings.Join(texts, ", ")
}
