package nft

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// feed runs nft with commands on its standard input.
func feed(t testing.TB, commands string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %.500s", err, out)
	}
}

// learned puts a way into a cache, as if it had been hit so often; of what was there before
// it takes the place.
func learned(t testing.TB, set, way string, packets int) {
	t.Helper()
	feed(t, fmt.Sprintf("add element inet postern %[1]s { %[2]s }\ndelete element inet postern %[1]s { %[2]s }\nadd element inet postern %[1]s { %[2]s counter packets %[3]d bytes 0 }",
		set, way, packets))
}

// TestCachedRead: each hit is told once, also those of the last epoch's caches; the
// packet that teaches a way is none.
func TestCachedRead(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(t, c, via)
	cached, err := DialCached(table.cfg.Marks)
	if err != nil {
		t.Fatal(err)
	}
	defer cached.Close()
	reads := func(when string, want ...string) {
		t.Helper()
		var got []string
		if err := cached.Read(true, true, func(h Hits) {
			got = append(got, fmt.Sprintf("%v %v %d %d %v %d", h.Src, h.Dst, h.Proto, h.DstPort, h.Allowed, h.Packets))
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	apply := func(s State) {
		t.Helper()
		if err := table.Apply(s); err != nil {
			t.Fatal(err)
		}
	}
	const web, six = "10.0.0.1 . 10.0.0.2 . tcp . 80", "fd00::1 . fd00::2 . udp . 53"

	reads("without a table")
	apply(State{Epoch: 4})
	learned(t, "allowed_even4", web, 7)
	reads("a new table", "10.0.0.1 10.0.0.2 6 80 true 6")
	other, err := DialCached(table.cfg.Marks)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Read(true, true, func(h Hits) { t.Errorf("told of what was there before: %+v", h) }); err != nil {
		t.Fatal(err)
	}
	reads("nothing new")
	learned(t, "allowed_even4", web, 9)
	learned(t, "denied_even6", six, 1)
	reads("two more, and one learned", "10.0.0.1 10.0.0.2 6 80 true 2")
	learned(t, "denied_even6", six, 4)
	reads("three more", "fd00::1 fd00::2 17 53 false 3")

	apply(State{Epoch: 5, Past: []uint32{4}})
	learned(t, "allowed_even4", web, 9+1+2) // hit once before the change, and taken over
	learned(t, "allowed_odd4", web, 1+5)
	learned(t, "denied_even6", six, 6)
	learned(t, "denied_odd6", six, 3) // learned again
	reads("one before the change, six after it, two denied before and two after",
		"10.0.0.1 10.0.0.2 6 80 true 1", "10.0.0.1 10.0.0.2 6 80 true 6", "fd00::1 fd00::2 17 53 false 2", "fd00::1 fd00::2 17 53 false 2")
	reads("nothing new after that")

	apply(State{Epoch: 6, Past: []uint32{5}})
	apply(State{Epoch: 7, Past: []uint32{6}})
	learned(t, "allowed_odd4", web, 20)
	reads("a change was missed")
	learned(t, "allowed_odd4", web, 21)
	reads("and then one", "10.0.0.1 10.0.0.2 6 80 true 1")
}

func TestCachedTotals(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(t, c, via)
	cached, err := DialCached(table.cfg.Marks)
	if err != nil {
		t.Fatal(err)
	}
	defer cached.Close()
	is := func(want Totals) {
		t.Helper()
		if got, err := cached.Totals(); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	counts := func(allowed, denied int) {
		t.Helper()
		feed(t, fmt.Sprintf("add table inet postern\nadd counter inet postern allowed_cache { packets %d bytes 0 }\nadd counter inet postern denied_cache { packets %d bytes 0 }", allowed, denied))
	}
	is(Totals{})
	counts(10, 20)
	is(Totals{10, 20})
	if err := table.Remove(); err != nil {
		t.Fatal(err)
	}
	is(Totals{10, 20})
	counts(3, 1)
	is(Totals{13, 21})
}

// TestElementsCut: whatever a message is cut to, it is read without fault.
func TestElementsCut(t *testing.T) {
	t.Parallel()
	// NFTA_SET_ELEM_KEY{NFTA_DATA_VALUE}, NFTA_SET_ELEM_EXPR{NAME, DATA{BYTES, PACKETS}}
	element := []byte{
		12, 0, 1, 0x80, 8, 0, 1, 0, 1, 2, 3, 4,
		44, 0, 7, 0x80, 12, 0, 1, 0, 'c', 'o', 'u', 'n', 't', 'e', 'r', 0, 28, 0, 2, 0x80,
		12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 7,
	}
	if key, n := elementKey(element), elementPackets(element); string(key) != "\x01\x02\x03\x04" || n != 7 {
		t.Errorf("%v, %d", key, n)
	}
	for n := range element {
		elementKey(element[:n])
		if got := elementPackets(element[:n]); got != 0 {
			t.Errorf("cut to %d bytes: %d packets", n, got)
		}
	}
	for n := range 60 {
		if _, ok := hitsOf(v6, make([]byte, n)); ok != (n == 40) {
			t.Errorf("key of %d bytes: %v", n, ok)
		}
	}
}

// BenchmarkCachedRead reads a full cache of the default size, here and with the library.
func BenchmarkCachedRead(b *testing.B) {
	c := inNamespace(b)
	via, err := Probe(c)
	if err != nil {
		b.Fatal(err)
	}
	table := newTable(b, c, via)
	if err := table.Apply(State{}); err != nil {
		b.Fatal(err)
	}
	cached, err := DialCached(table.cfg.Marks) // here: benchmarks within run on threads that are elsewhere
	if err != nil {
		b.Fatal(err)
	}
	defer cached.Close()
	size := 0
	fill := func(n int) {
		var ways strings.Builder
		ways.WriteString("add element inet postern allowed_even4 { ")
		for ; size < n; size++ {
			fmt.Fprintf(&ways, "10.1.%d.%d . 10.0.0.2 . tcp . 80 counter packets 1 bytes 0 timeout 1h, ", size>>8, size&255)
		}
		ways.WriteString("}")
		feed(b, ways.String())
	}
	for _, n := range []int{1024, 4096, DefaultCacheSize} {
		fill(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := cached.Read(true, true, func(Hits) {}); err != nil {
					b.Fatal(err)
				}
			}
			if got := len(cached.seen[kindAllowed][0]); got != n {
				b.Fatalf("%d ways, want %d", got, n)
			}
		})
	}
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			els, err := c.GetSetElements(table.sets.allowed[0][v4])
			if err != nil || len(els) != DefaultCacheSize {
				b.Fatalf("%d ways, %v", len(els), err)
			}
		}
	})
	b.Run("totals", func(b *testing.B) {
		for b.Loop() {
			if _, err := cached.Totals(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
