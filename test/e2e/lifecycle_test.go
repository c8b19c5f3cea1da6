package e2e

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/test/lab"
)

// connect opens a connection that a test keeps.
func (b *bench) connect(from, dest string, six bool) net.Conn {
	b.Helper()
	c, err := b.pods[from].DialTCP(at(b.pods[dest], six, 5432), patience)
	if err != nil {
		b.Fatalf("%s -> %s: %v", from, dest, err)
	}
	b.Cleanup(func() { c.Close() })
	if err := lab.Echo(c, []byte("first"), patience); err != nil {
		b.Fatalf("%s -> %s: %v", from, dest, err)
	}
	return c
}

// reaches asserts whether a new TCP flow gets an answer.
func (b *bench) reaches(from, dest string, six, want bool) {
	b.Helper()
	wait := impatience
	if want {
		wait = patience
	}
	err := b.pods[from].Exchange("tcp", at(b.pods[dest], six, 5432), []byte("hello"), wait)
	if (err == nil) != want {
		b.Errorf("%s -> %s (ipv6 %v): got an answer: %v (%v), want %v", from, dest, six, err == nil, err, want)
	}
}

// TestEstablishedStaysInKernel: however much a connection carries, the queue sees
// its first packet and no other.
func TestEstablishedStaysInKernel(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	for _, six := range []bool{false, true} {
		before := b.kernel().LastID
		c := b.connect("prod-engineering/api", "prod-engineering/db", six)
		payload := make([]byte, 1<<20)
		for range 64 {
			if err := lab.Echo(c, payload, 30*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.kernel().LastID - before; n < 1 || n > 5 { // the first may be sent again while it waits
			t.Errorf("ipv6 %v: %d packets of one connection with 64 MiB each way were queued, want the first", six, n)
		}
	}
	// One-way UDP has no reply that would make it established for conntrack.
	before := b.kernel().LastID
	src, dst := at(b.pods["prod-engineering/api"], false, 4000), at(b.pods["prod-engineering/db"], false, 514)
	sink := b.sniff(b.pods["prod-engineering/db"])
	for range 200 {
		if err := b.pods["prod-engineering/api"].Send(udp(src, dst, []byte("log line"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	arrived := func() int { return sink.Count(func(p lab.Packet) bool { return p.DstPort == 514 }) }
	eventually(t, "all datagrams arrive", func() bool { return arrived() == 200 })
	if n := b.kernel().LastID - before; n > 20 {
		t.Errorf("%d of 200 datagrams of one flow were queued, want the first few at most", n)
	}
}

// TestDaemonGone: without the daemon new flows of protected pods are dropped, unless it was
// killed and the like of them was allowed a moment ago; accepted ones live on, and pods without
// policy never notice. Afterwards a new daemon takes over what the old one left.
func TestDaemonGone(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, examples)
			b.serve(5432)
			b.start()
			for _, six := range []bool{false, true} {
				b.connect("prod-engineering/api", "prod-engineering/db", six)
			}
			c4 := b.connect("prod-engineering/api", "prod-engineering/db", false)
			c6 := b.connect("prod-engineering/intern-1", "prod-engineering/intern-2", true)
			if err := b.daemon.Stop(sig); err != nil {
				t.Fatal(err)
			}

			for _, c := range []net.Conn{c4, c6} {
				if err := lab.Echo(c, []byte("still here"), patience); err != nil {
					t.Errorf("an accepted connection died with the daemon: %v", err)
				}
			}
			for _, six := range []bool{false, true} {
				// The kernel remembers for a minute what was allowed, and forgets it where
				// the end was a normal one; web never asked.
				b.reaches("prod-engineering/api", "prod-engineering/db", six, sig == syscall.SIGKILL)
				db := b.sniff(b.pods["prod-engineering/db"])
				b.reaches("prod-engineering/web", "prod-engineering/db", six, false)
				b.reaches("prod-engineering/reports", "prod-engineering/db", six, false)
				b.reaches("prod-engineering/intern-1", "prod-engineering/web", six, false)
				b.reaches("prod-engineering/web", "prod-engineering/api", six, true)
				if n := db.Count(func(p lab.Packet) bool { return p.Opening }); n != 0 {
					t.Errorf("ipv6 %v: db received %d SYNs without a daemon to decide them", six, n)
				}
			}

			b.start()
			for _, six := range []bool{false, true} {
				b.reaches("prod-engineering/api", "prod-engineering/db", six, true)
				b.reaches("prod-engineering/reports", "prod-engineering/db", six, false)
			}
			for _, c := range []net.Conn{c4, c6} {
				if err := lab.Echo(c, []byte("and after"), patience); err != nil {
					t.Errorf("an accepted connection died with the restart: %v", err)
				}
			}
		})
	}
}

// TestCleanup: on request a normal end leaves nothing behind.
func TestCleanup(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--cleanup")
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
	if err := b.daemon.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if left := b.nft("list", "ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, true)
}

// TestTakeover starts the daemon on a host whose flows it has never seen: those
// that policy allows go on, whoever speaks first, and the others stop at their next
// packet in either direction.
func TestTakeover(t *testing.T) {
	t.Parallel()
	bothFamilies(t, func(t *testing.T, six bool) {
		b := setup(t, examples)
		b.serve(5432)
		allowed := b.connect("prod-engineering/web", "prod-engineering/db", six)
		denied := b.connect("prod-engineering/reports", "prod-engineering/db", six)
		inward := b.connect("prod-engineering/api", "prod-engineering/intern-1", six)
		b.start()
		// The receiver's answers meet its own egress rules if they are taken for
		// flows of their own; db has none, intern-1 would be denied.
		if err := lab.Echo(allowed, []byte("go on"), patience); err != nil {
			t.Errorf("an allowed flow from before was cut: %v", err)
		}
		for name, c := range map[string]net.Conn{"reports -> db": denied, "api -> intern-1": inward} {
			if err := lab.Echo(c, []byte("go on"), impatience); err == nil {
				t.Errorf("%s: a denied flow from before goes on", name)
			}
		}
	})
}

// TestChange edits the directory under a running daemon.
func TestChange(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	const reports, db, intern1 = "prod-engineering/reports", "prod-engineering/db", "prod-engineering/intern-1"

	b.reaches(reports, db, false, false)
	b.edit("serviceaccounts.yaml", "{app: reports}", "{app: web-frontend}") // the account's label
	b.reaches(reports, db, false, true)
	b.reaches(reports, db, true, true)
	b.edit("serviceaccounts.yaml", "{role: intern}", "{role: staff}") // intern-a is one no more
	b.reaches(intern1, "prod-engineering/web", false, true)
	b.reaches("prod-engineering/intern-2", intern1, false, false) // intern-2 still is
	b.write("policy-1-names.yaml", "")
	b.reaches("prod-engineering/api", db, false, false) // the policy that allowed it is gone, another isolates db
	b.write("policy-2-labels.yaml", "")
	b.reaches("prod-engineering/api", db, false, true) // nothing isolates db any more
	b.reaches("staging/api", db, false, true)
}

// TestBadManifest: whatever is written into the directory, the last good state
// stays, and the log says which file, object and field is wrong.
func TestBadManifest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, file, text string
		says             []string
	}{
		{"half a file", "policy-1-names.yaml", "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: demo-calico\n  namespace: prod-engineering\nspec:\n  selector: 'app == \"d", []string{"policy-1-names.yaml"}},
		{"not YAML", "policy-1-names.yaml", "\tspec: [", []string{"policy-1-names.yaml"}},
		{
			"invalid selector", "policy-1-names.yaml",
			"apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: demo-calico, namespace: prod-engineering}\nspec:\n  selector: 'app = \"db\"'\n  ingress: [{action: Allow}]\n",
			[]string{"policy-1-names.yaml", "NetworkPolicy prod-engineering/demo-calico", "spec.selector"},
		},
		{
			"unknown field", "policy-1-names.yaml",
			"apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: demo-calico, namespace: prod-engineering}\nspec:\n  selector: 'app == \"db\"'\n  ingres: [{action: Allow}]\n",
			[]string{"policy-1-names.yaml", "NetworkPolicy prod-engineering/demo-calico", "ingres"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := setup(t, examples)
			b.serve(5432)
			b.start()
			from := len(b.daemon.Log(0))
			b.writeOnly(tc.file, tc.text)
			line, _, err := b.daemon.Wait(from, patience, func(l lab.Line) bool { return l.Text("level") == "error" })
			if err != nil {
				t.Fatal(err)
			}
			text := line.Text("file") + " " + line.Text("object") + " " + line.Text("field") + " " + line.Text("error") + " " + line.Text("message")
			for _, s := range tc.says {
				if !strings.Contains(text, s) {
					t.Errorf("the log does not name %q: %v", s, line)
				}
			}
			b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
			b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
		})
	}
}

// TestNodeAndPods: the host reaches its pods whatever policy says, with their
// answers, and a pod reaches the host as its egress policy says.
func TestNodeAndPods(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		for name, p := range b.pods {
			for _, network := range []string{"tcp", "udp"} {
				if err := b.Node.Exchange(network, at(p, six, 5432), []byte("probe"), patience); err != nil {
					t.Errorf("node -> %s %s: %v", name, network, err)
				}
			}
		}
		for name, want := range map[string]bool{"prod-engineering/api": true, "prod-engineering/db": true, "prod-engineering/intern-1": false} {
			wait := impatience
			if want {
				wait = patience
			}
			err := b.pods[name].Exchange("tcp", at(b.Node, six, 5432), []byte("hello"), wait)
			if (err == nil) != want {
				t.Errorf("%s -> node: %v, want an answer: %v", name, err, want)
			}
		}
	})
}

// TestMarksOfOthers: bits outside the mask are nobody's business, and a mark that
// somebody forges under the mask is worth nothing.
func TestMarksOfOthers(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start()
	// Before our raw chains somebody sets a bit of theirs and the mark of an
	// accepted packet; behind us somebody counts what is left.
	b.nft("add", "table", "inet", "other")
	b.nft("add", "chain", "inet", "other", "early", "{ type filter hook prerouting priority -310; }")
	b.nft("add", "rule", "inet", "other", "early", "meta mark set 0x03004000")
	b.nft("add", "chain", "inet", "other", "late", "{ type filter hook postrouting priority 200; }")
	b.nft("add", "rule", "inet", "other", "late", "tcp dport 5432 meta mark != 0x00004000 counter")
	b.nft("add", "rule", "inet", "other", "late", "tcp dport 5432 meta mark == 0x00004000 counter")
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
	b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	out := b.nft("list", "chain", "inet", "other", "late")
	if !strings.Contains(out, "!= 0x00004000 counter packets 0 ") {
		t.Errorf("marks were changed:\n%s", out)
	}
	if strings.Contains(out, "mark 0x00004000 counter packets 0 ") {
		t.Errorf("no packet kept its mark:\n%s", out)
	}
}
