package flowlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// TestRepeats: of denials that are alike the first is written at once, the others are
// counted and written once an interval, and then it is forgotten.
func TestRepeats(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	ring := NewRing(64)
	w := NewWriter(zerolog.New(&buf), Config{Which: All, Interval: 10 * time.Second, PerSecond: 100}, ring)
	// step puts denials in at a second and returns what the drain then writes, as
	// "dport sport count".
	step := func(second int64, recs ...*Record) (got []string) {
		for _, r := range recs {
			ring.Put(r)
		}
		buf.Reset()
		w.drain(time.Unix(second, 0))
		for _, l := range lines(t, buf.Bytes()) {
			got = append(got, fmt.Sprint(l["dport"], " ", l["sport"], " ", l["count"]))
		}
		return got
	}
	denied := func(dport, sport uint16, second int64) *Record {
		r := record(rs, flow.TCP, dport, second)
		r.Tuple.SrcPort = sport
		return r
	}
	for _, tc := range []struct {
		name string
		got  []string
		want []string
	}{
		{"the first", step(1000, denied(80, 1, 1000), denied(80, 2, 1000), denied(81, 9, 1000)), []string{"80 1 <nil>", "81 9 <nil>"}},
		{"more of it, and one that is allowed", step(1005, denied(80, 3, 1005), record(rs, flow.TCP, 5432, 1005)), []string{"5432 4000 <nil>"}},
		{"not yet", step(1009), nil},
		{"the interval is over", step(1010), []string{"80 3 2"}},
		{"more", step(1012, denied(80, 4, 1012), denied(81, 8, 1012)), []string{"81 8 <nil>"}},
		{"the next interval", step(1020), []string{"80 4 1"}},
		{"nothing more", step(1030), nil},
		{"forgotten", step(1031, denied(80, 5, 1031)), []string{"80 5 <nil>"}},
	} {
		if d := cmp.Diff(tc.want, tc.got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
	}
	if s := w.Stats(); s.Lines.Load() != 7 || s.Repeated.Load() != 3 {
		t.Errorf("%d lines and %d repeated, want 7 and 3", s.Lines.Load(), s.Repeated.Load())
	}
}

// TestRepeatsAreBounded: whoever asks for a million different things gets no memory
// for them, and every denial is in a line, in a count, or counted as suppressed.
func TestRepeatsAreBounded(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	ring := NewRing(1 << 15)
	w := NewWriter(zerolog.New(&buf), Config{Which: Denied, Interval: 10 * time.Second, PerSecond: 50}, ring)
	const n = 20_000
	from := netip.MustParseAddr("10.9.0.0")
	d := rs.Decide(flow.Tuple{Src: from, Dst: netip.MustParseAddr("10.0.0.1"), Proto: flow.TCP, Ported: true})
	for i := range n {
		if i%3 == 0 {
			from = from.Next()
		}
		ring.Put(&Record{UnixNano: 1000e9, Decision: d, Ruleset: rs, Tuple: flow.Tuple{
			Src: from, Dst: netip.MustParseAddr("10.0.0.1"), Proto: flow.TCP, Ported: true, DstPort: 80, SrcPort: uint16(i),
		}})
	}
	most := 0
	for second := int64(1000); second < 1020; second++ {
		w.drain(time.Unix(second, 0))
		most = max(most, len(w.repeats.byKey), len(w.repeats.queue))
	}
	if most != maxRepeats {
		t.Errorf("%d are followed, want %d", most, maxRepeats)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(w.repeats.byKey)+len(w.repeats.queue) != 0 {
		t.Errorf("%d are followed at the end", len(w.repeats.byKey))
	}
	written, suppressed := 0, 0
	for _, l := range lines(t, buf.Bytes()) {
		switch c, _ := l["count"].(float64); {
		case l["message"] != "flow":
			suppressed += int(l["records"].(float64))
		case c > 0:
			written += int(c)
		default:
			written++
		}
	}
	if written+suppressed != n || written < 50 {
		t.Errorf("%d written and %d suppressed of %d", written, suppressed, n)
	}
	if got := w.Stats().Suppressed.Load(); got != uint64(suppressed) {
		t.Errorf("%d counted as suppressed, want %d", got, suppressed)
	}
}

// TestRepeatsAfterAStepBack: a clock that is set back does not keep counts for ever.
func TestRepeatsAfterAStepBack(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	ring := NewRing(4)
	w := NewWriter(zerolog.New(&buf), Config{Which: Denied, Interval: 10 * time.Second}, ring)
	ring.Put(record(rs, flow.TCP, 80, 100_000))
	ring.Put(record(rs, flow.TCP, 80, 100_000))
	w.drain(time.Unix(100_000, 0))
	w.drain(time.Unix(50_000, 0))
	if got := lines(t, buf.Bytes()); len(got) != 2 || got[1]["count"] != 1.0 {
		t.Errorf("%v", got)
	}
}

// TestSample: accepted flows are thinned, denials are not, and what is left out is
// counted.
func TestSample(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	ring := NewRing(1 << 14)
	w := NewWriter(zerolog.New(&buf), Config{Which: All, Sample: 10}, ring)
	const n = 10_000
	for i := range n {
		ring.Put(record(rs, flow.TCP, 5432, 0))
		if i%100 == 0 {
			ring.Put(record(rs, flow.TCP, 80, 0))
		}
	}
	w.drain(time.Unix(0, 0))
	count := map[any]int{}
	for _, l := range lines(t, buf.Bytes()) {
		count[l["verdict"]]++
		if (l["verdict"] == "allow") != (l["sample"] == 10.0) {
			t.Fatalf("%v", l)
		}
	}
	if count["deny"] != 100 {
		t.Errorf("%d denials, want 100", count["deny"])
	}
	if got := count["allow"]; got < 800 || got > 1200 { // 6.6 standard deviations
		t.Errorf("%d of %d accepted, want about a tenth", got, n)
	}
	if got := w.Stats().SampledOut.Load(); got != uint64(n-count["allow"]) {
		t.Errorf("%d sampled out, want %d", got, n-count["allow"])
	}
}

type watcher struct {
	events []Event
	missed uint64
}

func (w *watcher) Decided(e *Event) { w.events = append(w.events, *e) }
func (w *watcher) Missed(n uint64)  { w.missed += n }

// TestWatch: a watcher sees every decision whatever the log does, without what a
// client could make long or what is secret, and is told what was lost before.
func TestWatch(t *testing.T) {
	t.Parallel()
	rs := example(t)
	var buf bytes.Buffer
	var seen watcher
	ring := NewRing(4)
	long := string(bytes.Repeat([]byte("x"), 1<<16))
	for range 3 {
		ring.Put(record(rs, flow.TCP, 80, 7))
	}
	r := record(rs, flow.TCP, 5432, 7)
	r.Request = &Request{Asked: filter.Request{HTTP: true, Method: "GET", Path: "/a?token=secret"}, Source: long}
	ring.Put(r)
	ring.Put(r)
	NewWriter(zerolog.New(&buf), Config{Watch: &seen}, ring).Drain()
	if buf.Len() != 0 && !bytes.Contains(buf.Bytes(), []byte("lost records")) {
		t.Errorf("logged %s", buf.Bytes())
	}
	if len(seen.events) != 4 || seen.missed != 1 {
		t.Fatalf("saw %d and missed %d, want 4 and 1", len(seen.events), seen.missed)
	}
	e := seen.events[0]
	if !e.Denied() || e.Dst.ServiceAccount != "db-sa" || e.Src.Name != "" || e.Rule.Tier != "default" || e.Generation != 42 || e.Epoch != 3 {
		t.Errorf("%+v", e)
	}
	q := seen.events[3].Request
	if text, _ := json.Marshal(q); q.Path != "/a" || len(text) > 2*longest {
		t.Errorf("%s", text)
	}
}
