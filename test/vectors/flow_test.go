package vectors

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern-project/postern/filter/flow"
)

func TestParseFlow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want Flow
	}{
		{"a -> b tcp/80 => allow", Flow{Src: "a", Dst: "b", Proto: flow.TCP, Ported: true, SrcPort: defaultSourcePort, DstPort: 80, Want: "allow"}},
		{"a.6 -> b.6 udp/53 sport=7 => deny !allow", Flow{Src: "a.6", Dst: "b.6", Proto: flow.UDP, Ported: true, SrcPort: 7, DstPort: 53, Want: "deny", Upstream: "allow"}},
		{"a -> b tcp => deny", Flow{Src: "a", Dst: "b", Proto: flow.TCP, Want: "deny"}},
		{"a -> b 6/80 => deny", Flow{Src: "a", Dst: "b", Proto: flow.TCP, Ported: true, SrcPort: defaultSourcePort, DstPort: 80, Want: "deny"}},
		{"a -> b 47 => allow", Flow{Src: "a", Dst: "b", Proto: 47, Want: "allow"}},
		{"a -> b icmp:8 => allow", Flow{Src: "a", Dst: "b", Proto: flow.ICMP, ICMPType: 8, Want: "allow"}},
		{"a -> b icmpv6:3/4 => allow", Flow{Src: "a", Dst: "b", Proto: flow.ICMPv6, ICMPType: 3, ICMPCode: 4, Want: "allow"}},
		{"::1 -> b tcp/1 @ingress => allow", Flow{Src: "::1", Dst: "b", Proto: flow.TCP, Ported: true, SrcPort: defaultSourcePort, DstPort: 1, Chain: IngressOnly, Want: "allow"}},
		{"a -> b tcp/1 @hepu-in:h1 => none", Flow{Src: "a", Dst: "b", Proto: flow.TCP, Ported: true, SrcPort: defaultSourcePort, DstPort: 1, Chain: UntrackedIn, HostEndpoint: "h1", Want: "none"}},
		{"a -> b tcp/1 @l7 from=spiffe://x/ns/n/sa/s to=y m=GET p=/a?b=1 => OK !UNKNOWN", Flow{
			Src: "a", Dst: "b", Proto: flow.TCP, Ported: true, SrcPort: defaultSourcePort, DstPort: 1, Chain: L7,
			From: "spiffe://x/ns/n/sa/s", To: "y", Method: "GET", Path: "/a?b=1", Want: "OK", Upstream: "UNKNOWN",
		}},
	} {
		got, err := ParseFlow(c.text)
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(Flow{}, "Text")); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.text, diff)
		}
	}
}

func TestParseFlowRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "a", "a -> b", "a -> b => allow", "a -> b tcp/80", "a b tcp/80 => allow", "a > b tcp/80 => allow",
		"a -> b tcp/80 =>", "a -> b tcp/80 => maybe", "a -> b tcp/80 => allow deny", "a -> b tcp/80 => allow !maybe", "a -> b tcp/80 => allow !deny x",
		"a -> b tcp/65536 => allow", "a -> b tcp/ => allow", "a -> b tcp/x => allow", "a -> b tpc/80 => allow", "a -> b 256 => allow",
		"a -> b 47/80 => allow", "a -> b icmp/8 => allow", "a -> b icmp: => allow", "a -> b icmp:256 => allow", "a -> b icmp:8/ => allow", "a -> b tcp:8 => allow",
		"a -> b tcp/80 sport= => allow", "a -> b tcp/80 sport=x => allow", "a -> b 47 sport=5 => allow", "a -> b tcp/80 sport=1 sport=2 => allow", "a -> b tcp/80 dport=1 => allow",
		"a -> b tcp/80 @ => allow", "a -> b tcp/80 @egres => allow", "a -> b tcp/80 @hep-in => allow", "a -> b tcp/80 @hep-in: => allow", "a -> b tcp/80 @ingress:h => allow",
		"a -> b tcp/80 @ingress @egress => allow", "a -> b tcp/80 m=GET => allow", "a -> b tcp/80 @l7 m=GET p=/ => allow", "a -> b tcp/80 => OK", "a -> b tcp/80 => none",
		"a -> b tcp/80 @l7 p= => OK", "a -> b tcp/80 @l7 m=GET => OK", "a -> b tcp/80 @l7 p=/ => OK",
	} {
		f, err := ParseFlow(text)
		if err == nil {
			t.Errorf("%q parses to %+v", text, f)
		} else if !strings.Contains(err.Error(), text) {
			t.Errorf("error for %q does not show it: %v", text, err)
		}
	}
}

func TestFlowTuple(t *testing.T) {
	t.Parallel()
	pods := map[string][]netip.Addr{
		"a":   {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		"b":   {netip.MustParseAddr("10.0.0.2")},
		"c.6": {netip.MustParseAddr("10.0.0.3")},
	}
	find := func(name string) ([]netip.Addr, error) {
		if a, ok := pods[name]; ok {
			return a, nil
		}
		return nil, errors.New("unknown pod")
	}
	for _, c := range []struct{ src, dst, want string }{
		{"a", "b", "10.0.0.1 10.0.0.2"},
		{"a.6", "fd00::9", "fd00::1 fd00::9"},
		{"192.0.2.1", "c.6", "192.0.2.1 10.0.0.3"},
		{"a.6", "b", ""},
		{"b.6", "a.6", ""},
		{"a", "nobody", ""},
	} {
		f := Flow{Src: c.src, Dst: c.dst, Proto: flow.TCP}
		got, err := f.tuple(find)
		text := ""
		if err == nil {
			text = got.Src.String() + " " + got.Dst.String()
		}
		if text != c.want {
			t.Errorf("%s -> %s: got %q (%v), want %q", c.src, c.dst, text, err, c.want)
		}
	}
}

func FuzzParseFlow(f *testing.F) {
	f.Add("a -> b tcp/80 sport=7 @hep-in:h => none !allow")
	f.Add("a -> b icmp:8/0 @l7 from=x m=GET p=/ => OK")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseFlow(text)
		if err == nil && (got.Want == "" || got.Src == "" || got.Dst == "") {
			t.Errorf("%q parses to %+v", text, got)
		}
	})
}
