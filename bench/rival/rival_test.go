package rival

import (
	"net/netip"
	"testing"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

func TestTablesAgree(t *testing.T) {
	t.Parallel()
	for _, six := range []bool{false, true} {
		routes := gen.NewRoutes(six, 20_000, 1_000)
		var lookups []func(netip.Addr) uint32
		for _, table := range Tables {
			lookups = append(lookups, table.Build(routes.Routes).Lookup)
		}
		for _, addrs := range []gen.Addrs{routes.Hosts, routes.Nets} {
			for a := range addrs.All() {
				want := lookups[0](a)
				for k, table := range Tables {
					if got := lookups[k](a); want == 0 || got != want && !(table.Exact && got == 0) {
						t.Fatalf("%s gives %d for %s, %s %d", table.Name, got, a, Tables[0].Name, want)
					}
				}
			}
		}
	}
}

// TestDecidersAgree also checks that the traffic is worth deciding.
func TestDecidersAgree(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]*gen.World{
		"11 rules": gen.Cluster(11, false), "103 rules": gen.Cluster(103, false), "1002 rules": gen.Cluster(1002, false),
		"1002 rules and security tier": gen.Cluster(1002, true),
		"1000 rules on one pod":        gen.OnePod(1000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rs, problems := compile.Compile(w.Snapshot, compile.Options{Node: gen.LocalNode})
			if rs == nil || len(problems) > 0 {
				t.Fatalf("compile: %v", problems)
			}
			linear, err := NewLinear(w.Snapshot, gen.LocalNode, Tight)
			if err != nil {
				t.Fatal(err)
			}
			full, err := NewLinear(w.Snapshot, gen.LocalNode, Full)
			if err != nil {
				t.Fatal(err)
			}
			cached, err := NewCached(linear)
			if err != nil {
				t.Fatal(err)
			}
			naive, err := NewNaive(w.Snapshot, gen.LocalNode)
			if err != nil {
				t.Fatal(err)
			}
			oracle := explain.New(w.Snapshot, explain.Options{Node: gen.LocalNode})
			names := RuleNames(w.Snapshot)
			accepted := 0
			for i, f := range w.Flows {
				tuple := f.Tuple()
				d := rs.Decide(tuple)
				got := linear.Decide(&tuple)
				if err := Differ(rs, d, got, names); err != nil {
					t.Fatalf("%s: linear: %v", tuple, err)
				}
				if err := Differ(rs, d, full.Decide(&tuple), names); err != nil {
					t.Fatalf("%s: linear with full sets: %v", tuple, err)
				}
				for range 3 {
					if err := Differ(rs, d, cached.Decide(&tuple), names); err != nil {
						t.Fatalf("%s: linear with a cache: %v", tuple, err)
					}
				}
				if got.Accept {
					accepted++
				}
				if i%20 != 0 {
					continue
				}
				if err := Differ(rs, d, naive.Decide(tuple), names); err != nil {
					t.Fatalf("%s: naive: %v", tuple, err)
				}
				if want := oracle.Decide(tuple); want.Verdict.String() != d.Verdict.String() || string(want.Reason) != d.Reason.String() {
					t.Fatalf("%s: engine %s by %s, explainer %s by %s", tuple, d.Verdict, d.Reason, want.Verdict, want.Reason)
				}
			}
			if share := float64(accepted) / float64(len(w.Flows)); share < 0.2 || share > 0.8 {
				t.Errorf("%.0f %% of flows are accepted, want 20 to 80", 100*share)
			}
		})
	}
}

// TestLinearDrops holds it to the checks that the engine makes too.
func TestLinearDrops(t *testing.T) {
	t.Parallel()
	w := gen.OnePod(10)
	l, err := NewLinear(w.Snapshot, gen.LocalNode, Tight)
	if err != nil {
		t.Fatal(err)
	}
	allowed := w.Flows[0].Tuple()
	for _, f := range w.Flows {
		if tuple := f.Tuple(); l.Decide(&tuple).Accept {
			allowed = tuple
		}
	}
	if !l.Decide(&allowed).Accept {
		t.Fatal("no flow is accepted")
	}
	mapped, mixed, absent := allowed, allowed, allowed
	mapped.Src, mapped.Dst = netip.AddrFrom16(allowed.Src.As16()), netip.AddrFrom16(allowed.Dst.As16())
	mixed.Src = netip.MustParseAddr("2001:db8::1")
	absent.Dst = netip.MustParseAddr("192.0.2.1")
	for name, tuple := range map[string]flow.Tuple{"mapped": mapped, "mixed": mixed, "absent": absent, "zero": {}} {
		if l.Decide(&tuple).Accept {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNewLinearRefuses(t *testing.T) {
	t.Parallel()
	w := gen.OnePod(10)
	w.Snapshot.Policies[0].Ingress[0].IPVersion = 4
	if _, err := NewLinear(w.Snapshot, gen.LocalNode, Tight); err == nil {
		t.Error("a rule with an IP version: want an error")
	}
	if _, err := NewNaive(w.Snapshot, gen.LocalNode); err == nil {
		t.Error("a rule with an IP version: want an error")
	}
}
