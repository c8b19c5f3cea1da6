package speed

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/packet"
	"github.com/postern-project/postern/filter/replay"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h Histogram
	for i := range int64(100_000) {
		h.Add(i)
	}
	h.Add(-5)
	for q, want := range map[float64]float64{0.5: 50_000, 0.9: 90_000, 0.99: 99_000, 0.999: 99_900} {
		if got := h.Quantile(q); got < want*0.94 || got > want*1.06 {
			t.Errorf("quantile %g: %g, want about %g", q, got, want)
		}
	}
	n, end := uint64(0), uint64(0)
	for _, b := range h.Buckets() {
		if b.Low != end || b.High <= b.Low || b.High-b.Low > max(b.Low/16, 1) {
			t.Fatalf("bucket %+v after %d", b, end)
		}
		n, end = n+b.Count, b.High
	}
	if n != 100_001 {
		t.Errorf("%d counted", n)
	}
	for _, ns := range []uint64{0, 15, 16, 31, 32, 33, 1 << 20, 1<<63 - 1} {
		if i := bucketOf(ns); ns < bucketLow(i) || i+1 < len(h.counts) && ns >= bucketLow(i+1) {
			t.Errorf("%d is in bucket %d from %d", ns, i, bucketLow(i))
		}
	}
}

// A generated world compiles without a problem, its packets decode, and both verdicts
// occur.
func TestGenerate(t *testing.T) {
	t.Parallel()
	for _, rules := range []int{1, 100, 1000} {
		w := Generate(500, rules, 20_000)
		rs, problems := compile.Compile(w.Snapshot, compile.Options{})
		if rs == nil || len(problems) > 0 {
			t.Fatalf("%d rules: %v", rules, problems)
		}
		n := 0
		for _, p := range w.Snapshot.Policies {
			n += len(p.Ingress)
		}
		if n != rules {
			t.Errorf("%d rules, want %d", n, rules)
		}
		var verdicts [2]int
		for _, p := range w.Packets {
			tuple, st := packet.Decode(p)
			if st != packet.OK {
				t.Fatalf("packet: %v", st)
			}
			verdicts[rs.Decide(tuple).Verdict]++
		}
		if verdicts[filter.Accept] == 0 || verdicts[filter.Drop] == 0 {
			t.Errorf("%d rules: verdicts %v", rules, verdicts)
		}
	}
}

func measured(t *testing.T) *Result {
	t.Helper()
	r := NewResult("decide", "test", "packets")
	r.Reference = NewFlow
	for _, rules := range []int{10, 100} {
		w := Generate(100, rules, 3000)
		rs, _ := compile.Compile(w.Snapshot, compile.Options{})
		engine := new(filter.Engine)
		engine.Swap(rs)
		var err error
		r.Rows, err = Decide(context.Background(), Load{
			Engine: engine, Replay: replay.Config{Policy: rs}, Packets: w.Packets, Workers: 2, Lasts: 5 * time.Millisecond,
		}, Row{Pods: 100, Rules: rules}, r.Rows)
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// What is measured is whole, survives a file, and nothing of it allocates.
func TestDecide(t *testing.T) {
	r := measured(t)
	if len(r.Rows) != 12 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for _, row := range r.Rows {
		if row.PerSecond <= 0 || row.NS <= 0 || row.Count == 0 || row.P50 > row.P99 || row.P99 > row.P999 || len(row.Latency) == 0 {
			t.Errorf("%s: %+v", row.label(), row)
		}
		if row.Workers == 1 && (row.Allocs == nil || *row.Allocs != 0) {
			t.Errorf("%s allocates: %v", row.label(), row.Allocs)
		}
	}
	var file bytes.Buffer
	if err := r.Write(&file); err != nil {
		t.Fatal(err)
	}
	back, err := ReadResult(&file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, back); d != "" {
		t.Error(d)
	}
	half := *back
	half.Rows = append([]Row(nil), back.Rows...)
	for i := range half.Rows {
		half.Rows[i].NS *= 2
	}
	var table bytes.Buffer
	if lowest, err := half.Table(&table, r); err != nil || lowest != 0.5 || !strings.Contains(table.String(), "0.50") {
		t.Errorf("lowest %g, %v\n%s", lowest, err, table.String())
	}
	for _, text := range []string{"", "{}", `{"format":99,"bench":"x"}`, "[]"} {
		if _, err := ReadResult(strings.NewReader(text)); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

// The page holds everything, is well-formed, and loads nothing. Texts of results are
// foreign.
func TestPage(t *testing.T) {
	r := measured(t)
	evil := `</svg><script>alert(1)</script>"`
	r.Rows[0].Name, r.Version, r.Settings["traffic"] = evil, evil, evil
	empty := NewResult("kernel", "test", "packets")
	var page bytes.Buffer
	if err := Page(&page, []*Result{r, empty, {Bench: evil, Unit: evil, Rows: []Row{{Name: evil, PerSecond: 1}}}}); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	if n := strings.Count(text, "<svg"); n < 5 {
		t.Errorf("%d plots", n)
	}
	for _, never := range []string{"<script", "http:", "https:", "src=", "url(", "NaN", "Inf", "ZgotmplZ"} {
		if strings.Contains(text, never) {
			t.Errorf("the page holds %q", never)
		}
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1) {
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, svg)
			}
		}
	}
}
