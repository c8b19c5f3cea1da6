package e2e

import (
	"net"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/test/lab"
)

// TestLogRule: a rule with action Log writes its line for an allowed flow and lets the
// rules behind it decide.
func TestLogRule(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--flow-log", "none", "--log-prefix", "seen-%n")
	b.write("policy-0-log.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: watch, namespace: prod-engineering}
spec:
  order: 1
  selector: 'app == "db"'
  ingress: [{action: Log, protocol: TCP, metadata: {annotations: {example.org/ticket: "42", team: db}}}]
`)
	from := len(b.daemon.Log(0))
	b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	line, _, err := b.daemon.Wait(from, patience, lab.Message("log rule"))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"prefix": "seen-watch", "rule_annotations": "example.org/ticket=42 team=db", "policy": "prod-engineering/watch", "rule": "0", "verdict": "allow",
		"src_pod": "prod-engineering/api", "src_account": "api-service", "dst_account": "db-sa", "dport": "5432",
	} {
		if got := line.Text(field); got != want {
			t.Errorf("%s is %q, want %q: %v", field, got, want, line)
		}
	}
}

// TestStaged: a staged policy changes no verdict, and the log tells whom it would cut
// off.
func TestStaged(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.start("--flow-log", "denied")
	b.write("staged.yaml", `
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: no-api, namespace: prod-engineering}
spec:
  order: 1
  selector: 'app == "db"'
  ingress: [{action: Deny, source: {serviceAccounts: {names: [api-service]}}}]
`)
	from := len(b.daemon.Log(0))
	b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	line, _, err := b.daemon.Wait(from, patience, lab.Message("flow"))
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{"verdict": "allow", "pending": "deny", "pending_policy": "prod-engineering/no-api", "src_account": "api-service"} {
		if got := line.Text(field); got != want {
			t.Errorf("%s is %q, want %q: %v", field, got, want, line)
		}
	}
}

// TestInvalid: packets that fit no flow are dropped in the kernel, or judged.
func TestInvalid(t *testing.T) {
	for how, queued := range map[string]uint32{"drop": 0, "judge": 1} {
		t.Run(how, func(t *testing.T) {
			b := setup(t, examples)
			b.start("--conntrack-invalid", how)
			api, db := b.pods["prod-engineering/api"], b.pods["prod-engineering/db"]
			before := b.kernel().LastID
			// A reset for a connection that never was.
			if err := api.Send(lab.Build(lab.IP(api.Addr4(), db.Addr4(), layers.IPProtocolTCP),
				&layers.TCP{SrcPort: 9, DstPort: 9, Seq: 5, Ack: 5, ACK: true, RST: true})); err != nil {
				t.Fatal(err)
			}
			received := b.sniff(db)
			if err := api.Send(udp(at(api, false, 9), at(db, false, 10), []byte("behind"))); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the packet behind arrives", func() bool { return received.Count(func(p lab.Packet) bool { return p.DstPort == 10 }) > 0 })
			if n := b.kernel().LastID - before - 1; n != queued {
				t.Errorf("%d packets were queued besides the one behind, want %d", n, queued)
			}
		})
	}
}

// TestUntracked: packets that somebody keeps from conntrack have no flow in which a
// verdict could be remembered. What is decided alike is remembered, so that few of
// them are asked about, and none more than once.
func TestUntracked(t *testing.T) {
	b := setup(t, examples)
	b.nft("add table inet other; add chain inet other early { type filter hook prerouting priority -300; }; add rule inet other early udp dport 514 notrack;" +
		" add chain inet other own { type filter hook output priority -300; }; add rule inet other own udp dport 514 notrack")
	b.start()
	bothFamilies(t, func(t *testing.T, six bool) {
		db := b.pods["prod-engineering/db"]
		received := b.sniff(db)
		const each = 20
		before := b.kernel().LastID
		for range each {
			for _, from := range []string{"prod-engineering/reports", "prod-engineering/api"} {
				if err := b.pods[from].Send(udp(at(b.pods[from], six, 514), at(db, six, 514), []byte("line"))); err != nil {
					t.Fatal(err)
				}
			}
		}
		from := func(name string) int { return received.Count(lab.From(at(b.pods[name], six, 0).Addr())) }
		eventually(t, "what is allowed arrives", func() bool { return from("prod-engineering/api") == each })
		if n := from("prod-engineering/reports"); n != 0 {
			t.Errorf("%d denied datagrams arrived", n)
		}
		eventually(t, "the queue is empty", func() bool { return b.kernel().Waiting == 0 })
		if n := b.kernel().LastID - before; n < 2 || n > 2*each {
			t.Errorf("%d packets were queued, want one of each sender, and each of %d once at most; %s\nthe daemon's log:\n%s",
				n, 2*each, b.nft("list", "counters"), b.daemon.Text())
		}
		// The host's own reach its pods, unasked.
		if err := b.Node.Do(func() error {
			c, err := net.Dial("udp", at(db, six, 514).String())
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("from the host"))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the host's datagram arrives", func() bool {
			return received.Count(func(p lab.Packet) bool { return string(p.Payload) == "from the host" }) == 1
		})
	})
}
