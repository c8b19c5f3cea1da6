package packet

import (
	"net/netip"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/flow"
)

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestDecode(t *testing.T) {
	t.Parallel()
	seen := map[Status]bool{}
	for _, f := range fixtures() {
		got, st := Decode(f.packet)
		if st != f.status {
			t.Errorf("%s: status %v, want %v", f.name, st, f.status)
		}
		if d := cmp.Diff(f.want, got, cmpAddr); d != "" {
			t.Errorf("%s: (-want +got)\n%s", f.name, d)
		}
		seen[f.status] = true
	}
	for st := OK; st < Statuses; st++ {
		if !seen[st] {
			t.Errorf("no fixture ends as %v", st)
		}
	}
}

// The copy range may cut anywhere, and a cut must never change the answer into
// another one: a prefix gives the whole packet's tuple, or no tuple.
func TestDecodeEveryTruncation(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures() {
		shortest := -1
		for n := range len(f.packet) + 1 {
			got, st := Decode(f.packet[:n:n])
			switch {
			case st == OK && (f.status != OK || got != f.want):
				t.Errorf("%s: first %d bytes: %v, want %v (%v)", f.name, n, got, f.want, f.status)
			case st == OK && shortest < 0:
				shortest = n
			case st != OK && got != flow.Tuple{}:
				t.Errorf("%s: first %d bytes: %v with tuple %v", f.name, n, st, got)
			case st != OK && shortest >= 0:
				t.Errorf("%s: first %d bytes: %v, but %d bytes were enough", f.name, n, st, shortest)
			case st != OK && f.status == OK && st != TooShort && st != Truncated:
				t.Errorf("%s: first %d bytes: %v, want it to say that bytes are missing", f.name, n, st)
			}
		}
	}
}

// The buffer is the socket's; the packet in it may still be sent on.
func TestDecodeLeavesBuffer(t *testing.T) {
	t.Parallel()
	for _, f := range fixtures() {
		before := string(f.packet)
		Decode(f.packet)
		if string(f.packet) != before {
			t.Errorf("%s: buffer was changed", f.name)
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	fs := fixtures()
	n := testing.AllocsPerRun(100, func() {
		for _, f := range fs {
			Decode(f.packet)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for %d packets, want 0", n, len(fs))
	}
}

func TestStatusNames(t *testing.T) {
	t.Parallel()
	kebab := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]Status{}
	for st := Unknown; st < Statuses; st++ {
		name := st.String()
		if !kebab.MatchString(name) {
			t.Errorf("status %d: name %q is not kebab-case", st, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("statuses %d and %d are both %q", other, st, name)
		}
		seen[name] = st
	}
	for _, st := range []Status{Statuses, 255} {
		if got := st.String(); got != "unknown" {
			t.Errorf("status %d: name %q, want unknown", uint8(st), got)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	shapes := []string{
		"ipv4 tcp syn", "ipv6 tcp syn", "ipv4 udp", "ipv6 udp", "ipv4 icmp", "ipv6 icmp", "ipv4 gre",
		"ipv4 router alert", "ipv6 atomic fragment", "ipv6 eight extensions",
		"ipv4 last fragment", "ipv6 mapped source", "ipv6 nine extensions",
	}
	packets := map[string][]byte{}
	for _, f := range fixtures() {
		packets[f.name] = f.packet
	}
	for _, s := range shapes {
		p, ok := packets[s]
		if !ok {
			b.Fatalf("no fixture %q", s)
		}
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Decode(p)
			}
		})
	}
}
