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
	"github.com/google/go-cmp/cmp/cmpopts"

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
	if d := cmp.Diff(r, back, cmpopts.IgnoreUnexported(Result{})); d != "" {
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
	if err := Page(&page, []*Result{r, empty, {Bench: evil, Unit: evil, Rows: []Row{{Name: evil, PerSecond: 1}}}}, nil); err != nil {
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
		wellFormed(t, svg)
	}
	files := Plots([]*Result{r, r}, []*Result{r})
	names := map[string]bool{}
	for _, f := range files {
		names[f.Name] = true
		svg := string(f.SVG)
		wellFormed(t, svg)
		if strings.Contains(strings.ReplaceAll(svg, `xmlns="http://www.w3.org/2000/svg"`, ""), "http") || strings.Contains(svg, "<script") {
			t.Errorf("%s loads something", f.Name)
		}
	}
	if len(files) < 10 || len(names) != len(files) || !regexp.MustCompile(`^[a-z0-9-]+\.svg$`).MatchString(files[0].Name) {
		t.Errorf("%d plots in files of %d names, such as %s", len(files), len(names), files[0].Name)
	}
}

func wellFormed(t *testing.T, svg string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
	}
}

// A result is compared with the earlier one of the same traffic: in the table, and by a
// mark in the bars where the earlier rate was.
func TestPageAgainst(t *testing.T) {
	t.Parallel()
	result := func(traffic string, perSecond float64) *Result {
		r := NewResult("kernel", "test", "packets")
		r.Settings["traffic"] = traffic
		r.Rows = []Row{{Name: "postern", PerSecond: perSecond, P50: 1000, Latency: []Bucket{{900, 1100, 50}}}}
		return r
	}
	for _, tc := range []struct {
		earlier    *Result
		cell, mark string
	}{
		{result(Generated, 50), `<td class="faster">2.00</td>`, "<title>earlier: 50</title>"},
		{result(Generated, 400), `<td class="slower">0.25</td>`, "<title>earlier: 400</title>"},
		{result(Generated, 101), `<td>0.99</td>`, "<title>earlier: 101</title>"},
		{result("a.pcap", 50), "", ""},
	} {
		var page bytes.Buffer
		if err := Page(&page, []*Result{result(Generated, 100)}, []*Result{tc.earlier}); err != nil {
			t.Fatal(err)
		}
		if tc.cell == "" {
			if strings.Contains(page.String(), "earlier:") || strings.Contains(page.String(), "compared with") {
				t.Error("compared with other traffic")
			}
			continue
		}
		for _, want := range []string{tc.cell, tc.mark, "compared with", "× earlier"} {
			if !strings.Contains(page.String(), want) {
				t.Errorf("%q is not in the page", want)
			}
		}
	}
}

// What others use is told from what we use ourselves.
func TestOthers(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	first := usage{at: at, user: 50 * time.Second, own: time.Second, stolen: time.Second, known: true}
	later := usage{at: at.Add(10 * time.Second), user: 65 * time.Second, own: 11 * time.Second, stolen: 2 * time.Second, known: true}
	if part, ok := later.others(first, 2); !ok || part < 0.299 || part > 0.301 { // 15 - 10 + 1 of 20
		t.Errorf("%g, %v", part, ok)
	}
	if _, ok := later.others(usage{}, 2); ok {
		t.Error("told without a beginning")
	}
	if _, ok := first.others(first, 2); ok {
		t.Error("told of no time at all")
	}
	if u := usageNow(); !u.known || u.user < u.own/2 {
		t.Errorf("this machine: %+v", u)
	}
}

// Round ticks, neither too few nor too many, and the largest value below the top.
func TestTicks(t *testing.T) {
	t.Parallel()
	for v := 0.001; v < 1e9; v *= 1.07 {
		a := fromZero("", []float64{v}, short)
		if len(a.ticks) < 3 || len(a.ticks) > 6 || a.high < v || a.high > 2.2*v {
			t.Errorf("%g: %d ticks up to %g", v, len(a.ticks), a.high)
		}
	}
	if count(7) != "7" || count(1000) != "1,000" || count(1234567) != "1,234,567" {
		t.Error(count(7), count(1000), count(1234567))
	}
}
