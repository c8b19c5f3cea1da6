package e2e

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/test/lab"
)

// These tests do what other programs do to nftables, and look at packets.

// repaired waits until the daemon says, from line number from on, that it has put the
// table in again, and that it checks source addresses again.
func (b *bench) repaired(from int) (said lab.Line, next int) {
	b.Helper()
	said, next, err := b.daemon.Wait(from, 20*time.Second, func(l lab.Line) bool {
		return strings.HasPrefix(l.Text("message"), "another program changed or removed the table in the kernel: put it in again")
	})
	if err != nil {
		b.Fatal(err)
	}
	if _, next, err = b.daemon.Wait(next, 20*time.Second, lab.Message("checking source addresses")); err != nil {
		b.Fatal(err)
	}
	if !strings.HasSuffix(said.Text("by"), " (nft)") {
		b.Errorf("the log does not say who did it: %v", said)
	}
	return said, next
}

// holds asserts that policy and the check of source addresses are in force.
func (b *bench) holds() {
	b.Helper()
	for _, six := range []bool{false, true} {
		b.reaches(api, db, six, true)
		atDB := b.sniff(b.pods[db])
		src := at(b.pods[reports], six, 4500)
		if err := b.pods[reports].Send(syn(src, at(b.pods[db], six, 5432))); err != nil {
			b.Fatal(err)
		}
		if n := b.forge(b.pods[reports], at(b.pods[api], six, 4501), b.pods[web], 5432); n != 0 {
			b.Errorf("ipv6 %v: %d forged packets arrived", six, n)
		}
		if n := atDB.Count(lab.From(src.Addr())); n != 0 {
			b.Errorf("ipv6 %v: %d denied packets arrived", six, n)
		}
	}
}

// TestFlushRuleset: somebody flushes the ruleset. Until the table is there again
// everything passes; then denied flows stop, also those that began meanwhile, and
// allowed ones have noticed nothing.
func TestFlushRuleset(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.startChecking()
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		stays := b.connect(api, db, six)
		next := len(b.daemon.Log(0))
		var meanwhile net.Conn
		b.stopped(func() { // it repairs nothing then
			b.nft("flush", "ruleset")
			meanwhile = b.connect(reports, db, six)
		})
		b.repaired(next)
		atDB := b.sniff(b.pods[db])
		if err := lab.Echo(meanwhile, []byte("go on"), impatience); err == nil {
			t.Error("a denied connection that began meanwhile goes on")
		}
		if n := atDB.Count(lab.From(at(b.pods[reports], six, 0).Addr())); n != 0 {
			t.Errorf("db received %d packets of it", n)
		}
		if err := lab.Echo(stays, []byte("go on"), patience); err != nil {
			t.Errorf("an allowed connection was cut: %v", err)
		}
		b.holds()
	})
	b.T = t
	st, err := control.NewClient(b.socket).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(st.Degraded, func(s string) bool { return strings.Contains(s, "repaired 2 times") }) {
		t.Errorf("the status does not speak of it: %v", st.Degraded)
	}
}

// TestFlushUnderLoad flushes under a stream of denied new flows. How many pass depends on
// how soon the table is there again; then none does.
func TestFlushUnderLoad(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.startChecking()
	atDB := b.sniff(b.pods[db])
	stop, ended := make(chan struct{}), make(chan int)
	go func() { ended <- b.stream(reports, db, stop) }()
	next := len(b.daemon.Log(0))
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		b.nft("flush", "ruleset")
		var said lab.Line
		said, next = b.repaired(next)
		t.Logf("put in again %s ms after the flush was noticed", said.Text("took"))
	}
	close(stop)
	sent := <-ended
	denied := func(p lab.Packet) bool {
		return p.DstPort == 514 && (p.Src == b.pods[reports].Addr4() || p.Src == b.pods[reports].Addr6())
	}
	passed := atDB.Count(denied)
	t.Logf("%d of %d denied datagrams passed in three gaps", passed, sent)
	if passed == sent {
		t.Error("all passed: nothing was enforced before")
	}
	stop = make(chan struct{})
	time.AfterFunc(200*time.Millisecond, func() { close(stop) })
	b.stream(reports, db, stop)
	b.holds()
	if n := atDB.Count(denied) - passed; n != 0 {
		t.Errorf("%d denied datagrams passed after the repair", n)
	}
}

// TestDamagedTable damages a part. It is repaired like the whole.
func TestDamagedTable(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.startChecking()
	next := len(b.daemon.Log(0))
	addr := func(six bool) string { return at(b.pods[db], six, 0).Addr().String() }
	for _, tc := range []struct{ name, text string }{
		{"rules", "flush chain inet postern enforce"},
		{"a base chain", "flush chain inet postern pod_postrouting; delete chain inet postern pod_postrouting"},
		{"addresses", "delete element inet postern ingress4 { " + addr(false) + " }; delete element inet postern ingress6 { " + addr(true) + " }"},
		{"the check of sources", "flush chain inet postern arrived; flush chain inet postern sources; delete chain inet postern sources; delete set inet postern links"},
		{"a rule before ours", "insert rule inet postern pod_postrouting accept"},
		{"asleep", "add table inet postern { flags dormant; }"},
		{"another in its place", "delete table inet postern; table inet postern { set ingress4 { type inet_service; }; chain enforce { type filter hook forward priority 0; }; }"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b.T = t
			b.nft(tc.text)
			_, next = b.repaired(next)
			b.holds()
		})
	}
	b.T = t
}
