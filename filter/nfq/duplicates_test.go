package nfq

import (
	"math/rand/v2"
	"os"
	"testing"
)

// TestDuplicatesAgree: packets of a flow that reach the queue before its first
// verdict is back, in whatever batch and in either direction, get the same verdict
// while the ruleset is the same. No memory of flows is needed for that: a decision is
// a pure function of ruleset and tuple.
func TestDuplicatesAgree(t *testing.T) {
	const flows = 20
	q, out := offline(t, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	flowOf := map[uint32]int{} // by packet id
	id := uint32(0)
	for range 30 {
		n := 1 + rnd.IntN(batch)
		for i := range n {
			f := rnd.IntN(flows)
			sport, dport := uint16(4000+f), uint16(79+f%3)
			id++
			flowOf[id] = f
			if rnd.IntN(2) == 0 {
				q.lay(i, packetDatagram(t, id, 0, tcpPacket("10.0.0.9", "10.0.0.1", sport, dport)))
			} else {
				q.lay(i, packetDatagram(t, id, q.cfg.Marks.Reply, tcpPacket("10.0.0.1", "10.0.0.9", dport, sport)))
			}
		}
		if err := q.answer(n, 1); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	first, kinds := map[int]uint32{}, map[uint32]int{}
	for _, v := range verdicts(t, written) {
		f := flowOf[v.ID]
		if want, seen := first[f]; seen && v.Mark != want {
			t.Errorf("flow %d: verdict %#x for packet %d, and %#x before", f, v.Mark, v.ID, want)
		}
		first[f] = v.Mark
		kinds[v.Mark]++
	}
	if len(first) != flows || len(kinds) != 2 {
		t.Errorf("%d flows and verdicts %v: nothing was tested", len(first), kinds)
	}
}
