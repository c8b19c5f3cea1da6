package dataplane

import (
	"os/exec"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
)

// TestDrops: every cause is there, each packet counts for one, and nothing is forgotten
// when somebody removes the table.
func TestDrops(t *testing.T) {
	runtime.LockOSThread() // the thread, and its namespace, end with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("this test needs root (CAP_SYS_ADMIN), to make a network namespace: %v", err)
	}
	defer ns.Close()
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseLasting()
	q, err := nfq.Open(nfq.Config{Queue: 7, MaxLen: 1, CopyRange: 128}, &filter.Engine{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	s := q.Stats()
	s.Dropped[filter.NotReady].Store(1)
	s.Dropped[filter.EndOfTier].Store(2)
	s.Dropped[filter.UnknownPod].Store(7)
	s.HoldsExpired.Store(3)
	s.HoldsRefused.Store(4)
	s.Undecodable[0].Store(5)
	s.Refused.Store(6)
	counts := NewCounts(c, []*nfq.Queue{q})
	want := map[Cause]uint64{}
	for _, cause := range Causes {
		want[cause] = 0
	}
	want[DropNotReady], want[DropPolicy], want[DropHoldExpired], want[DropHoldRefused], want[DropUndecodable], want[DropFlushed] = 1, 2, 3, 4, 5, 6
	check := func(when string) {
		t.Helper()
		_, got, err := counts.Read()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	check("without a table")
	text := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v: %s", args, err, out)
		}
	}
	text(`
table inet postern {
	counter denied { packets 10 bytes 0; }
	counter denied_cache { packets 20 bytes 0; }
	counter denied_flow { packets 30 bytes 0; }
	counter invalid { packets 40 bytes 0; }
	counter spoofed { packets 50 bytes 0; }
	counter queued { packets 60 bytes 0; }
}`)
	want[DropPolicy], want[DropInvalid], want[DropSpoofed] = 62, 40, 50
	check("with a table")
	text("flush ruleset")
	check("without it again")
	text("table inet postern { counter denied { packets 1 bytes 0; }; }")
	want[DropPolicy] = 63
	check("with a new one")
	check("the same again")
}

// TestCausesOfCounters: no counter of dropped packets is left out.
func TestCausesOfCounters(t *testing.T) {
	t.Parallel()
	others := map[nft.Counter]bool{
		nft.CounterQueued: true, nft.CounterAccepted: true, nft.CounterStale: true, nft.CounterAllowedCache: true,
		nft.CounterKept: true, nft.CounterFromNode: true, nft.CounterUnanswered: true,
	}
	for _, c := range nft.Counters {
		if _, drops := byCounter[c]; drops == others[c] {
			t.Errorf("counter %s: a cause: %v, counts what is not dropped: %v", c, drops, others[c])
		}
	}
}
