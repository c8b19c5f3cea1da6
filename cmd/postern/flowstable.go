package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/postern-project/postern/filter/live"
)

// printFlows writes flows as a table, sorted by their ends. Names may hold anything, so
// they are made safe for one line.
func printFlows(w io.Writer, flows []live.Flow) error {
	if len(flows) == 0 {
		return nil
	}
	slices.SortFunc(flows, func(a, b live.Flow) int {
		return cmp.Or(
			cmp.Compare(a.Src.Pod, b.Src.Pod), a.Src.Addr.Compare(b.Src.Addr),
			cmp.Compare(a.Dst.Pod, b.Dst.Pod), a.Dst.Addr.Compare(b.Dst.Addr),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Dst.Port, b.Dst.Port), cmp.Compare(a.Src.Port, b.Src.Port))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PROTO\tFROM\tACCOUNT\tTO\tACCOUNT\tVERDICT\tSTATE\tAGE\tSENT\tANSWERED\tVIA")
	for i := range flows {
		f := &flows[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Proto,
			endText(&f.Src), orNone(f.Src.Account), endText(&f.Dst), orNone(f.Dst.Account),
			verdictText(f), orNone(stateText(f)), ageText(f), countText(f.Sent), countText(f.Answered), orNone(via(f)))
	}
	return t.Flush()
}

// endText is "pod (address):port", or the address where it is no pod's.
func endText(e *live.End) string {
	at := e.Addr.String()
	if e.Port != 0 {
		at = netip.AddrPortFrom(e.Addr, e.Port).String()
	}
	if e.Pod != "" {
		return oneLine(e.Pod) + " (" + at + ")"
	}
	return at
}

func verdictText(f *live.Flow) string {
	if f.Standing == live.Current || f.Verdict == "none" {
		return f.Verdict
	}
	return f.Verdict + ", " + string(f.Standing)
}

func stateText(f *live.Flow) string {
	if f.ICMPType != nil && f.ICMPCode != nil {
		return fmt.Sprintf("type %d code %d", *f.ICMPType, *f.ICMPCode)
	}
	return f.TCPState
}

func ageText(f *live.Flow) string {
	if f.AgeSeconds == nil {
		return "-"
	}
	d := time.Duration(*f.AgeSeconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// countText is "PACKETS/BYTES".
func countText(c *live.Count) string {
	if c == nil {
		return "-"
	}
	return strconv.FormatUint(c.Packets, 10) + "/" + strconv.FormatUint(c.Bytes, 10)
}

// via is the address that the sender spoke to, and that by which the receiver knows it,
// as far as they are others than those of the ends.
func via(f *live.Flow) (s string) {
	if f.Translated == nil {
		return ""
	}
	if f.Translated.Destination {
		s = addrText(f.Translated.Original.Dst)
	}
	if f.Translated.Source {
		if s != "" {
			s += ", "
		}
		s += "as " + addrText(f.Translated.Reply.Dst)
	}
	return s
}

func addrText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return oneLine(s)
}
