package live

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
)

// written collects log lines of another goroutine.
type written struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *written) lines(t testing.TB) (ls []map[string]any) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for text := range strings.Lines(w.b.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		ls = append(ls, l)
	}
	return ls
}

// TestEnds: judged flows and those that policy has something to say about get a line at
// their end, others none; and not more lines than wanted.
func TestEnds(t *testing.T) {
	maker := inNamespace(t)
	m := marks(t)
	rs := ruleset(t)
	var out written
	history := NewHistory(m.Epochs())
	history.Add(rs, 5, time.Now())
	v := NewView(m, rs, &nft.State{Epoch: 5}, false)
	e := &Ends{Log: zerolog.New(&out), View: func() *View { return v }, Past: history}
	w, err := conntrack.Watch(0, conntrack.Ended)
	if err != nil {
		t.Fatal(err)
	}
	c, err := conntrack.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end := func() {
		t.Helper()
		if _, err := c.Sweep(conntrack.Filter{}, func(*conntrack.Entry) conntrack.Action { return conntrack.Delete() }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- e.Run(ctx, w) }()
	lines := func(n int) []map[string]any {
		t.Helper()
		for range 500 {
			if len(out.lines(t)) >= n {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		ls := out.lines(t)
		if len(ls) != n {
			t.Fatalf("%d lines, want %d: %v", len(ls), n, ls)
		}
		return ls
	}

	add(t, maker, flow.UDP, "10.0.0.1", "10.9.0.1", 1001, 53, 0, nil) // of an open pod
	add(t, maker, flow.UDP, "1.1.1.1", "2.2.2.2", 1002, 53, 0, nil)   // of nobody here
	add(t, maker, flow.UDP, "10.0.0.1", "10.9.0.1", 1003, 53, m.Denied(5), nil)
	end()
	l := lines(1)[0]
	for field, want := range map[string]any{
		"message": "flow end", "verdict": "deny", "proto": "udp", "src": "10.0.0.1", "src_pod": "a/web", "src_account": "web-sa",
		"dst_pod": "b/far", "sport": 1003.0, "dport": 53.0, "generation": 9.0,
	} {
		if l[field] != want {
			t.Errorf("%s is %v, want %v", field, l[field], want)
		}
	}
	for _, field := range []string{"seconds", "sent_bytes", "service", "policy"} {
		if got, there := l[field]; there {
			t.Errorf("%s is %v, and nobody knows", field, got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.Close()

	// In one second, without a kernel.
	e.PerSecond = 2
	now := time.Unix(1000, 0)
	for range 5 {
		e.ended(&conntrack.Entry{Original: tuple("10.0.0.1", "10.0.0.2"), Answer: tuple("10.0.0.2", "10.0.0.1"), Mark: m.Flow(5)}, now)
	}
	lines(3)
	e.ended(&conntrack.Entry{Original: tuple("10.0.0.1", "10.0.0.2"), Answer: tuple("10.0.0.2", "10.0.0.1"), Mark: m.Flow(5)}, now.Add(time.Second))
	if l := lines(5)[3]; l["records"] != 3.0 || l["level"] != "warn" {
		t.Errorf("%v", l)
	}
	if s := e.Stats(); s.Lines.Load() != 4 || s.Suppressed.Load() != 3 || s.Overruns.Load() != 0 {
		t.Errorf("%d lines, %d suppressed", s.Lines.Load(), s.Suppressed.Load())
	}
}

func tuple(src, dst string) flow.Tuple {
	return flow.Tuple{Src: addr(src), Dst: addr(dst), Proto: flow.UDP, Ported: true, SrcPort: 53, DstPort: 53}
}

// TestHistory: names are those of the time when a flow was judged, and memory is
// bounded however often policy changes.
func TestHistory(t *testing.T) {
	t.Parallel()
	owner := func(name string) *filter.Ruleset {
		a := addr("10.0.0.1")
		rs, err := filter.New(&filter.Spec{
			Prefixes: []filter.ClassPrefix{{Prefix: netip.PrefixFrom(a, 32), Class: 1}}, Classes: []filter.Class{{}, {}},
			Programs:  []filter.Program{{Final: filter.FinalAllow}},
			Endpoints: []filter.Endpoint{{EndpointInfo: filter.EndpointInfo{Namespace: "a", Name: name}, Addrs: []netip.Addr{a}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return rs
	}
	h := NewHistory(32)
	if rs := h.Names(3, true); rs != nil {
		t.Error("names of nothing")
	}
	now := time.Unix(1000, 0)
	is := func(epoch uint32, judged bool, want string) {
		t.Helper()
		ep, _ := h.Names(epoch, judged).Endpoint(addr("10.0.0.1"))
		if ep.Name != want {
			t.Errorf("epoch %d, judged %v: %s, want %s", epoch, judged, ep.Name, want)
		}
	}
	h.Add(owner("first"), 30, now)
	h.Add(owner("second"), 31, now.Add(time.Second))
	h.Add(owner("third"), 1, now.Add(2*time.Second)) // the wheel has come round
	is(30, true, "first")
	is(31, true, "second")
	is(0, true, "second") // not seen here, so what was before it
	is(1, true, "third")
	is(17, true, "first") // older than all that is remembered
	is(30, false, "third")
	h.Add(owner("renamed"), 1, now.Add(3*time.Second)) // a change that the kernel was not told of
	is(1, true, "renamed")
	is(31, true, "second")
	busy := owner("busy")
	for i := range 5000 { // a change each 10 ms
		h.Add(busy, uint32(2+i)%32, now.Add(4*time.Second+time.Duration(i)*10*time.Millisecond))
	}
	if n := len(h.past); n > int(remembered/spacing)+3 {
		t.Errorf("%d rulesets are kept", n)
	}
	is(31, true, "busy")
}
