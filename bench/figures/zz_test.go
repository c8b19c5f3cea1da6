package main
import ("testing";"github.com/postern-project/postern/bench/gen")
func BenchmarkZZ(b *testing.B) {
	w := gen.Cluster(10002, false)
	c, err := newContest(w, gen.Zipf(w.Flows))
	if err != nil { b.Fatal(err) }
	d := c.decide()
	l := walk(c, c.linear, len(c.stream))
	b.Run("engine", func(b *testing.B){ n:=0; for b.Loop() { d.Run(0); n++ }; b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*d.Ops), "ns/decision") })
	b.Run("linear", func(b *testing.B){ n:=0; for b.Loop() { l.Run(0); n++ }; b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*l.Ops), "ns/decision") })
}
