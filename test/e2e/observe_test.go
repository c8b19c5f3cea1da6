package e2e

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/filter/observe"
)

// TestObserve: what is decided can be watched, and looked up afterwards.
func TestObserve(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start("--flow-log", "none")

	follow := exec.Command(program, "observe", "--socket", b.socket, "--follow", "--last", "5", "-o", "json", "--account", "prod-engineering/db-sa", "--verdict", "deny")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { follow.Process.Kill(); follow.Wait() })
	lines := make(chan string, 64)
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
	select {
	case text := <-lines:
		var l observe.Line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if l.Verdict != "deny" || l.SrcPod != "prod-engineering/reports" || l.SrcAccount != "reports-sa" || l.DstPort == nil || *l.DstPort != 5432 ||
			l.Reason != "end-of-tier" || l.Tier != "default" || l.Generation == 0 || l.Epoch == nil {
			t.Errorf("%s", text)
		}
	case <-time.After(2 * patience):
		t.Fatal("nothing was observed")
	}

	code, text, errs := ask(t, nil, "observe", "--socket", b.socket, "--verdict", "allow", "--pod", "prod-engineering/api")
	if code != 0 || !strings.Contains(text, "ALLOW tcp prod-engineering/api (api-service) ") || strings.Contains(text, "DENY") || strings.Contains(text, "\x1b") {
		t.Errorf("exit code %d:\n%s%s", code, text, errs)
	}
	if code, _, errs := ask(t, nil, "observe", "--socket", b.socket, "--pod", "web"); code != 2 || !strings.Contains(errs, `--pod "web": want NAMESPACE/NAME`) {
		t.Errorf("exit code %d, want 2: %s", code, errs)
	}

	// An interrupt ends it well, the end of the daemon does not.
	if err := follow.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
	if err := b.daemon.Stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, _, _ := ask(t, nil, "observe", "--socket", b.socket); code != 3 {
		t.Errorf("without a daemon: exit code %d, want 3", code)
	}
}

// TestRepeatedDenials: denials that are alike are counted in one line.
func TestRepeatedDenials(t *testing.T) {
	b := setup(t, examples)
	b.start("--flow-log", "denied", "--flow-log-interval", "1s")
	// What a rule logs the kernel does not remember, so that each is asked about.
	b.write("policy-0-log.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: watch, namespace: prod-engineering}
spec:
  order: 1
  selector: 'app == "db"'
  ingress: [{action: Log}]
`)
	reports, db := b.pods["prod-engineering/reports"], b.pods["prod-engineering/db"]
	const n = 40
	for port := range uint16(n) {
		if err := reports.Send(udp(at(reports, false, 2000+port), at(db, false, 7777), []byte("no"))); err != nil {
			t.Fatal(err)
		}
	}
	var lines, total int
	eventually(t, "all denials are in lines", func() bool {
		lines, total = 0, 0
		for _, l := range b.daemon.Log(0) {
			if l.Text("message") != "flow" || l.Text("dport") != "7777" {
				continue
			}
			lines++
			if c, ok := l["count"].(float64); ok {
				total += int(c)
			} else {
				total++
			}
		}
		return total >= n
	})
	if total != n || lines > n/2 {
		t.Errorf("%d lines tell of %d denials, want %d in few", lines, total, n)
	}
}
