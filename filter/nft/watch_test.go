package nft

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// watching starts a watcher in the test's namespace.
func watching(t *testing.T, ours ...*Conn) *Watcher {
	t.Helper()
	w, err := NewWatcher(ours...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// damages runs the watcher until it has told of as many, or for a while if none is
// wanted.
func (w *Watcher) damages(t *testing.T, want int) (ds []Damage) {
	t.Helper()
	patience := 20 * time.Second
	if want == 0 {
		patience = 3 * watchEvery
	}
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	if err := w.Run(ctx, func(d Damage) {
		if ds = append(ds, d); len(ds) == want {
			stop()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(ds) < want || want == 0 && len(ds) > 0 {
		t.Errorf("told %v, want %d", ds, want)
	}
	return ds
}

func nftRun(t *testing.T, text string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v: %s", text, err, out)
	}
}

// TestWatcher: what we do ourselves and what others do to their own tables is no damage;
// what others do to ours is, whatever it is, and who did it is told.
func TestWatcher(t *testing.T) {
	c := inNamespace(t)
	via, err := Probe(c)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer other.CloseLasting()
	w := watching(t, c, other)
	table := newTable(t, c, via)
	put := func(epoch uint32) {
		t.Helper()
		if err := table.Apply(State{Ingress: addrs("10.0.1.10", "fd00:1::10"), Pods: addrs("10.0.1.10"), Epoch: epoch}); err != nil {
			t.Fatal(err)
		}
		if err := NewSources(other, SourcesDropped, nil).Apply([]int{1, 2}); err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	put(1)
	nftRun(t, "table inet theirs { set s { type ipv4_addr; }; chain c { type filter hook input priority 0; }; }\ntable ip postern { chain c { }; }")
	nftRun(t, "add element inet theirs s { 1.2.3.4 }; delete table inet theirs; delete table ip postern")
	if out, err := exec.Command("nft", "delete", "chain", "inet", "postern", "enforce").CombinedOutput(); err == nil {
		t.Fatalf("a chain in use was deleted: %s", out)
	}
	w.damages(t, 0)

	epoch := uint32(2)
	for _, text := range []string{
		"flush ruleset",
		"delete table inet postern",
		"flush chain inet postern enforce",
		"flush chain inet postern sources",
		"flush chain inet postern arrived",
		"flush chain inet postern host_input; delete chain inet postern host_input",
		"delete element inet postern ingress4 { 10.0.1.10 }",
		"flush set inet postern ingress6",
		"flush set inet postern links",
		"insert rule inet postern pod_postrouting accept",
		"add table inet postern { flags dormant; }",
		"add counter inet postern mine",
		// One of the same name that is ours in nothing.
		"delete table inet postern; table inet postern { set ingress4 { type inet_service; elements = { 80 }; }; chain enforce { type filter hook input priority 0; policy drop; }; }",
	} {
		nftRun(t, text)
		d := w.damages(t, 1)
		if len(d) > 0 && (d[0].Lost || !strings.HasSuffix(d[0].By, " (nft)")) {
			t.Errorf("%s: told %+v", text, d[0])
		}
		table.Distrust()
		put(epoch)
		epoch++
		w.damages(t, 0)
		intact(t, table)
	}
}

// intact compares what stands in the kernel with a table that was put into an empty
// namespace.
func intact(t *testing.T, table *Table) {
	t.Helper()
	got := list(t)
	for _, want := range []string{"policy accept", "arrived", "host_input", "fd00:1::10", "10.0.1.10", `comment "ask"`, "an answer would go back this way"} {
		if !strings.Contains(got, want) {
			t.Errorf("after the repair %q is missing:\n%s", want, got)
		}
	}
	for _, bad := range []string{"dormant", "policy drop", "inet_service; elements"} {
		if strings.Contains(got, bad) {
			t.Errorf("after the repair there is %q:\n%s", bad, got)
		}
	}
	for _, ch := range table.builder(table.state).chains() {
		if ch.ofOthers {
			continue
		}
		rules, err := table.conn.GetRules(table.table, &nftables.Chain{Table: table.table, Name: ch.name})
		if err != nil || len(rules) != len(ch.rules) {
			t.Errorf("chain %s has %d rules, want %d (%v)", ch.name, len(rules), len(ch.rules), err)
		}
	}
}

// TestWatcherLosesNews: news that do not fit into the socket, and such as never come, are
// missed all the same.
func TestWatcherLosesNews(t *testing.T) {
	c := inNamespace(t)
	for name, lose := range map[string]func(*Watcher) error{
		"they do not fit": func(w *Watcher) error { return w.news.SetReadBuffer(1) },
		"they never come": func(w *Watcher) error { return w.news.LeaveGroup(unix.NFNLGRP_NFTABLES) },
	} {
		t.Run(name, func(t *testing.T) {
			w := watching(t, c)
			if err := lose(w); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			b.WriteString("table inet postern { set s { type ipv4_addr; }; }\n")
			for i := range 2000 {
				fmt.Fprintf(&b, "add element inet postern s { 10.0.%d.%d }\n", i/256, i%256)
			}
			nftRun(t, b.String())
			nftRun(t, "delete table inet postern")
			lost := false
			for _, d := range w.damages(t, 1) {
				lost = lost || d.Lost
			}
			if !lost {
				t.Error("nothing was missed")
			}
		})
	}
}

// TestWatcherIsSlow: news that wait because this process gets little time are not lost.
func TestWatcherIsSlow(t *testing.T) {
	c := inNamespace(t)
	w := watching(t, c)
	const changes = 5
	nftRun(t, "add table inet postern")
	for i := range changes - 1 {
		nftRun(t, fmt.Sprintf("add chain inet postern c%d", i))
	}
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	defer stop()
	told := 0
	if err := w.Run(ctx, func(d Damage) {
		if d.Lost {
			t.Error("news are taken for lost that wait to be read")
		}
		if told++; told == changes {
			stop()
		}
		time.Sleep(2 * watchEvery)
	}); err != nil {
		t.Fatal(err)
	}
	if told != changes {
		t.Errorf("told of %d changes, want %d", told, changes)
	}
}
