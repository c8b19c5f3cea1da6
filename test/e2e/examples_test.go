package e2e

import (
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/test/lab"
)

// reachable is who may open a flow to whom under the three documented examples,
// written down from the documentation and not from postern: rows send, columns
// receive.
var reachable = map[string]map[string]bool{
	"prod-engineering/api":      to("db", "api", "auth", "web", "reports", "s-api"),
	"prod-engineering/auth":     to("db", "api", "auth", "web", "reports", "s-api"),
	"prod-engineering/web":      to("db", "api", "auth", "web", "reports", "s-api"),
	"prod-engineering/reports":  to("api", "auth", "web", "reports", "s-api"),
	"prod-engineering/db":       to("api", "auth", "web", "reports", "s-api"),
	"prod-engineering/intern-1": to("intern-1", "intern-2"),
	"prod-engineering/intern-2": to("intern-1", "intern-2"),
	"staging/api":               to("api", "auth", "web", "reports", "s-api"),
}

func to(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		if n == "s-api" {
			m["staging/api"] = true
			continue
		}
		m["prod-engineering/"+n] = true
	}
	return m
}

// TestExamples is the table, with the documented manifests in a directory.
func TestExamples(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	b.holdsTable(t)
}

// holdsTable lets every pod open a flow to every other, over TCP and UDP, and
// compares what the receivers got with the table above.
func (b *bench) holdsTable(t *testing.T) {
	t.Helper()
	bothFamilies(t, func(t *testing.T, six bool) {
		sniffers := map[string]*lab.Sniffer{}
		for name, p := range b.pods {
			sniffers[name] = b.sniff(p)
		}
		var exchanges sync.WaitGroup
		for from := range reachable {
			for dest := range reachable {
				if from == dest {
					continue
				}
				for _, network := range []string{"tcp", "udp"} {
					want := reachable[from][dest]
					wait := impatience
					if want {
						wait = patience
					}
					exchanges.Go(func() {
						err := b.pods[from].Exchange(network, at(b.pods[dest], six, 5432), []byte("hello"), wait)
						if (err == nil) != want {
							t.Errorf("%s -> %s %s: got an answer: %v (%v), want %v", from, dest, network, err == nil, err, want)
						}
					})
				}
			}
		}
		exchanges.Wait()
		time.Sleep(100 * time.Millisecond) // the sniffers read on
		for dest, s := range sniffers {
			for from := range reachable {
				if from == dest {
					continue
				}
				src := at(b.pods[from], six, 0).Addr()
				got := s.Count(func(p lab.Packet) bool { return p.Src == src && p.DstPort == 5432 })
				if want := reachable[from][dest]; (got > 0) != want {
					t.Errorf("%s received %d packets from %s, want some: %v", dest, got, from, want)
				}
			}
		}
	})
	if s := b.kernel(); s.QueueDropped != 0 || s.UserDropped != 0 || s.Waiting != 0 {
		t.Errorf("the queue lost packets or holds some: %+v", s)
	}
}
