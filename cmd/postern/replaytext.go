package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/postern-project/postern/filter/replay"
)

// replayText prints a report for people. Names come from captures and manifests, so
// the whole is made safe for a terminal.
func replayText(w io.Writer, r *replay.Report, captures []captureReport, top int, compared bool) error {
	var b strings.Builder
	for _, c := range captures {
		note := ""
		if c.Error != "" {
			note = ", and could not be read on"
		}
		fmt.Fprintf(&b, "%s: %s%s\n", oneLine(c.Name), plural(int(c.Packets), "packet"), note)
	}
	b.WriteString("\n")
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tflows\tpackets\tbytes\t")
	for _, v := range []struct {
		name string
		replay.Volume
	}{{"allowed", r.Allowed}, {"denied", r.Denied}, {"no pod at either end", r.Outside}} {
		if v.Flows > 0 || v.name != "no pod at either end" {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t\n", v.name, v.Flows, v.Packets, v.Bytes)
		}
	}
	t.Flush()
	b.WriteString(asides(r))
	if compared {
		changesText(&b, r, top)
	}
	if len(r.DeniedPairs) > 0 {
		b.WriteString("\ndenied, the most flows first\n")
		for _, p := range shown(r.DeniedPairs, top) {
			pairText(&b, &p)
			fmt.Fprintf(&b, "      %s\n", oneLine(p.Is.String()))
		}
		moreText(&b, len(r.DeniedPairs), top, r.MoreDenied.Flows)
	}
	if len(r.Unknown) > 0 {
		b.WriteString("\naddresses without a pod, the most flows first (--map IP=namespace/pod gives them to one)\n")
		for _, u := range shown(r.Unknown, top) {
			fmt.Fprintf(&b, "  %6d  %s\n", u.Flows, u.Address)
		}
		moreText(&b, len(r.Unknown), top, r.MoreUnknown)
	}
	_, err := io.WriteString(w, sanitize(b.String()))
	return err
}

// asides says what else the packets were.
func asides(r *replay.Report) string {
	var b strings.Builder
	say := func(n uint64, format string, args ...any) {
		if n > 0 {
			fmt.Fprintf(&b, "%d "+format+"\n", append([]any{n}, args...)...)
		}
	}
	say(r.MidStream, "connections were under way when the capture began; the first packet seen was taken for the opener's unless --mid-stream guess was given")
	say(r.Evicted, "flows were let go early for want of room; see --max-flows")
	kind := func(k replay.Kind) uint64 { return r.Kinds[k.String()] }
	say(kind(replay.Invalid), "packets fit no flow and can begin none: postern drops them if a protected pod is at either end")
	for _, name := range sortedKeys(r.Undecodable) {
		say(r.Undecodable[name], "packets cannot be decoded and are dropped if a protected pod is at either end: %s", name)
	}
	say(r.LooseFragments, "fragments came without the first of their packet")
	say(kind(replay.Cut), "packets were captured too short to be read")
	say(kind(replay.Related), "packets are ICMP errors about a flow and go with it")
	say(kind(replay.LinkLocal), "packets are ICMPv6 of the link, which is not filtered")
	say(kind(replay.NotIP), "packets are not IP")
	return b.String()
}

func changesText(b *strings.Builder, r *replay.Report, top int) {
	if len(r.Changes) == 0 {
		b.WriteString("\nno verdict differs from the baseline's\n")
		return
	}
	for _, kind := range []struct{ verdict, title string }{{"deny", "would be denied, and is not now"}, {"", "would pass, and is denied now"}} {
		var of []replay.Pair
		for _, p := range r.Changes {
			if (p.Is.Verdict == "deny") == (kind.verdict == "deny") {
				of = append(of, p)
			}
		}
		if len(of) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n%s\n", kind.title)
		for _, p := range shown(of, top) {
			pairText(b, &p)
			fmt.Fprintf(b, "      was  %s\n      is   %s\n", oneLine(p.Was.String()), oneLine(p.Is.String()))
		}
		moreText(b, len(of), top, 0)
	}
	if r.MoreChanged.Flows > 0 {
		fmt.Fprintf(b, "  and %d flows of further pairs\n", r.MoreChanged.Flows)
	}
}

func pairText(b *strings.Builder, p *replay.Pair) {
	const most = 6
	var services []string
	rest := p.MoreServices
	for i, s := range p.Services {
		if i < most {
			services = append(services, s.String())
		} else {
			rest += s.Flows
		}
	}
	text := strings.Join(services, ", ")
	if rest > 0 {
		text += fmt.Sprintf(" and %d flows more", rest)
	}
	fmt.Fprintf(b, "  %6d  %s -> %s  %s\n", p.Flows, oneLine(p.From.String()), oneLine(p.To.String()), text)
}

func shown[T any](list []T, top int) []T {
	if top == 0 {
		return list
	}
	return list[:min(top, len(list))]
}

// moreText says how much of a list is not shown, and how much was never in it.
func moreText(b *strings.Builder, have, top int, beyond uint64) {
	if top != 0 && have > top {
		fmt.Fprintf(b, "  and %d more; --top 0 shows all\n", have-top)
	}
	if beyond > 0 {
		fmt.Fprintf(b, "  and %d flows beyond those, which were not kept apart\n", beyond)
	}
}

func sortedKeys(m map[string]uint64) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
