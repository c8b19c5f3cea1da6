package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/test/lab"
)

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	tmp := filepath.Join(dir, ".tmp")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// runOn runs the program in a host's namespace until it ends.
func runOn(t *testing.T, h *lab.Host, attr *syscall.SysProcAttr, args ...string) (code int, stderr string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr, cmd.SysProcAttr = &out, attr
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String())
}

// TestRefusesToStart: each reason is one clear sentence on standard error, and
// nothing is left in the kernel.
func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	openTo(t, filepath.Dir(program))
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

	for _, tc := range []struct {
		name string
		attr *syscall.SysProcAttr
		args []string
		code int
		says string
	}{
		{"without root", nobody, nil, 4, "postern: bind: no permission to use netfilter queues: run as root, or give the process CAP_NET_ADMIN in this network namespace (operation not permitted)"},
		{"no source", nil, []string{"--source", ""}, 2, "postern: --source or --kubeconfig is required: the directory of Kubernetes manifests, or the cluster, to enforce"},
		{"no queues", nil, []string{"--queues", "0"}, 2, "postern: --queues 0: want 1 or more"},
		{"queue numbers", nil, []string{"--queue", "65535", "--queues", "2"}, 2, "postern: --queue 65535 --queues 2: queue numbers end at 65534; the one above says that a postern runs"},
		{"scattered mark mask", nil, []string{"--mark-mask", "0xf0f0"}, 2, "postern: --mark-mask: mark mask 0xf0f0: want at least 6 contiguous bits, such as 0xff000000"},
		{"mark mask, no number", nil, []string{"--mark-mask", "bits"}, 2, `postern: --mark-mask "bits": want a number of 32 bits, such as 0xff000000`},
		{"endpoint to host", nil, []string{"--endpoint-to-host", "return"}, 2, `postern: --endpoint-to-host "return": want accept, drop or reject`},
		{"flow log", nil, []string{"--flow-log", "some"}, 2, `postern: --flow-log "some": want all, denied or none`},
		{"log format", nil, []string{"--log-format", "xml"}, 2, `postern: --log-format "xml": want json, console or auto`},
		{"unknown flag", nil, []string{"--no-such"}, 2, "postern: unknown flag: --no-such"},
		{"argument", nil, []string{"now"}, 2, `postern: run takes flags only, not "now"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stderr := runOn(t, b.Node, tc.attr, append([]string{"run", "--source", b.dir, "--log-format", "json"}, tc.args...)...)
			first, _, _ := strings.Cut(stderr, "\n")
			if code != tc.code || first != tc.says {
				t.Errorf("exit code %d, said %q; want %d, %q", code, first, tc.code, tc.says)
			}
		})
	}

	t.Run("queue taken", func(t *testing.T) {
		var theirs *nfq.Queue
		if err := b.Node.Do(func() (err error) {
			theirs, err = nfq.Open(nfq.Config{Queue: queue, MaxLen: 1, CopyRange: 128}, &filter.Engine{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		code, stderr := runOn(t, b.Node, nil, "run", "--source", b.dir, "--log-format", "json")
		want := fmt.Sprintf("postern: queue %d: bind: another program owns it: process %d (", queue, os.Getpid())
		if code != 4 || !strings.HasPrefix(stderr, want) || strings.Contains(stderr, "\n") {
			t.Errorf("exit code %d, said %q; want 4, one sentence that begins %q", code, stderr, want)
		}
	})

	// Two would replace each other's rules, whatever queues they use.
	t.Run("another postern", func(t *testing.T) {
		b.start()
		var before string
		eventually(t, "the first daemon has learned the pods' links", func() bool {
			before = b.nft("list", "ruleset")
			time.Sleep(300 * time.Millisecond)
			return before == b.nft("list", "ruleset")
		})
		for _, args := range [][]string{nil, {"--queue", "200"}} {
			code, stderr := runOn(t, b.Node, nil, append([]string{"run", "--source", b.dir, "--log-format", "json"}, args...)...)
			want := fmt.Sprintf("postern: another postern enforces in this network namespace: process %d (%s run ", b.daemon.PID(), program)
			if code != 4 || !strings.HasPrefix(stderr, want) || strings.Contains(stderr, "\n") {
				t.Errorf("exit code %d, said %q; want 4, one sentence that begins %q", code, stderr, want)
			}
		}
		if after := b.nft("list", "ruleset"); after != before {
			t.Errorf("a second daemon changed the rules:\n%s", after)
		}
		// The end of the first makes room, however it ends.
		if err := b.daemon.Stop(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.start("--queue", "200")
		code, stderr := runOn(t, b.Node, nil, "cleanup")
		want := fmt.Sprintf("postern: a postern runs here: process %d (%s run ", b.daemon.PID(), program)
		if code != 1 || !strings.HasPrefix(stderr, want) {
			t.Errorf("cleanup beside it: exit code %d, said %q; want 1, and %q", code, stderr, want)
		}
	})
}

// TestQueueVia asks for each way of queueing: what the kernel has works, and what
// it lacks is refused in one sentence.
func TestQueueVia(t *testing.T) {
	worked := 0
	for via, missing := range map[string]string{"native": "nft_queue", "xt": "xt_NFQUEUE"} {
		t.Run(via, func(t *testing.T) {
			b := setup(t, examples)
			b.serve(5432)
			b.launch("--queue-via", via)
			if _, err := b.daemon.WaitEnforcing(0); err != nil {
				text := b.daemon.Text()
				if want := "--queue-via " + via + ": this kernel cannot"; !strings.Contains(text, want) {
					t.Fatalf("want it to enforce, or to say %q: %v", want, err)
				}
				if err := b.daemon.Stop(syscall.SIGTERM); err == nil {
					t.Error("it refused with exit code 0")
				}
				t.Logf("this kernel has no %s: %s", missing, text)
				return
			}
			worked++
			b.reaches("prod-engineering/api", "prod-engineering/db", false, true)
			b.reaches("prod-engineering/reports", "prod-engineering/db", true, false)
		})
	}
	if worked == 0 {
		t.Error("neither way works on this kernel")
	}
}

// TestWaitsForAValidSource: nothing is enforced and the kernel is not touched
// before everything in the directory can be read; once it can, all is enforced
// without a restart.
func TestWaitsForAValidSource(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	good, err := os.ReadFile(filepath.Join(b.dir, "policy-1-names.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b.writeOnly("policy-1-names.yaml", "kind: [")
	b.launch()
	if _, _, err := b.daemon.Wait(0, patience, func(l lab.Line) bool { return strings.HasSuffix(l.Text("file"), "policy-1-names.yaml") }); err != nil {
		t.Fatal(err)
	}
	if rules := b.nft("list", "ruleset"); rules != "" {
		t.Errorf("the kernel was touched:\n%s", rules)
	}
	// What others do to the table before then is put right with the first state, and nobody
	// speaks of it as if it were not.
	b.nft("add table inet postern; delete table inet postern")
	b.writeOnly("policy-1-names.yaml", string(good))
	if _, err := b.daemon.WaitEnforcing(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the status says that flows are judged", func() bool {
		_, text, _ := ask(t, nil, "status", "--socket", b.socket)
		return strings.Contains(text, "enforcing") && !strings.Contains(text, "pass unjudged")
	})
	b.reaches("prod-engineering/reports", "prod-engineering/db", false, false)
}
