package e2e

import (
	"net"
	"strconv"
	"testing"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/test/lab"
)

// forget has the node's kernel forget flows to a port, as if their time had come.
func (b *bench) forget(dport uint16) {
	b.Helper()
	if err := b.Node.Do(func() error {
		c, err := conntrack.Dial()
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Sweep(conntrack.Filter{}, func(e *conntrack.Entry) conntrack.Action {
			if e.Tuple().DstPort == dport {
				return conntrack.Delete()
			}
			return conntrack.Keep()
		})
		return err
	}); err != nil {
		b.Fatal(err)
	}
}

// TestFlowEnds: the log tells of the end of a flow what it carried and whose it was, also
// when the pod has gone and another has its address.
func TestFlowEnds(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--flow-log", "none", "--flow-log-ends", "--conntrack-accounting")
	ended := func(from int, src string) (lab.Line, int) {
		t.Helper()
		l, next, err := b.daemon.Wait(from, patience, func(l lab.Line) bool { return l.Text("message") == "flow end" && l.Text("src") == src })
		if err != nil {
			t.Fatal(err)
		}
		return l, next
	}
	says := func(l lab.Line, want map[string]string) {
		t.Helper()
		for field, text := range want {
			if got := l.Text(field); got != text {
				t.Errorf("%s is %q, want %q: %v", field, got, text, l)
			}
		}
	}
	from := len(b.daemon.Log(0))
	if err := b.pods[api].Exchange("udp", at(b.pods[db], false, 5432), make([]byte, 1000), patience); err != nil {
		t.Fatal(err)
	}
	b.forget(5432)
	l, _ := ended(from, b.pods[api].Addr4().String())
	says(l, map[string]string{
		"verdict": "allow", "proto": "udp", "src_pod": api, "src_account": "api-service", "dst_pod": db, "dst_account": "db-sa", "dport": "5432",
		"sent_packets": "1", "sent_bytes": "1028", "answered_packets": "1", "answered_bytes": "1028", "reason": "rule",
	})
	if s, err := strconv.ParseFloat(l.Text("seconds"), 64); err != nil || s < 0 || s > 60 {
		t.Errorf("seconds: %q", l.Text("seconds"))
	}

	// The address changes hands: what ends is the flow of the pod before.
	b.connect(web, db, false)
	from = len(b.daemon.Log(0))
	b.edit("pods.yaml", "name: web\n", "name: heir\n")
	l, _ = ended(from, b.pods[web].Addr4().String())
	says(l, map[string]string{"src_pod": web, "src_account": "web-sa", "proto": "tcp"})
}

// TestCachedFlowsAreSeen: flows that the kernel decides by itself are in the log, by accounts
// and port, and not one of them is missing.
func TestCachedFlowsAreSeen(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--flow-log-cached", "1s")
	const each = 20
	var conns []net.Conn
	for range each {
		conns = append(conns, b.connect(api, db, false))
	}
	for i := range each {
		if err := b.pods[reports].Send(syn(at(b.pods[reports], true, uint16(3000+i)), at(b.pods[db], true, 5432))); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			eventually(t, "the denial is learned", func() bool { return b.counter("denied") > 0 })
		}
	}
	for _, c := range conns {
		c.Close()
	}
	type told struct{ known, all int }
	sum := func() map[string]told {
		got := map[string]told{}
		for _, l := range b.daemon.Log(0) {
			n, _ := strconv.Atoi(l.Text("flows"))
			s := got[l.Text("verdict")]
			switch l.Text("message") {
			case "flows from the kernel's cache":
				want := map[string]string{
					"allow": "tcp prod-engineering/api-service prod-engineering/db-sa 5432",
					"deny":  "tcp prod-engineering/reports-sa prod-engineering/db-sa 5432",
				}[l.Text("verdict")]
				text := l.Text("proto") + " " + l.Text("src_namespace") + "/" + l.Text("src_account") + " " + l.Text("dst_namespace") + "/" + l.Text("dst_account") + " " + l.Text("dport")
				if text != want {
					t.Errorf("%v, want %s", l, want)
				}
				s.known += n
				s.all += n
			case "flows from the kernel's cache, of ways that are not known":
				s.all += n
			}
			got[l.Text("verdict")] = s
		}
		return got
	}
	allowed, denied := int(b.counter("allowed_cache")), int(b.counter("denied_cache"))
	if allowed < each-1 || denied != each-1 {
		t.Fatalf("the caches decided %d and %d", allowed, denied)
	}
	eventually(t, "all are told", func() bool { s := sum(); return s["allow"].all == allowed && s["deny"].all == denied })
	if s := sum(); s["allow"].known == 0 || s["deny"].known == 0 {
		t.Errorf("none has a name: %+v", s)
	}
}
