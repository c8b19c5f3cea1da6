package assertion

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/policy"
)

func gateOf(t *testing.T, assertions string) *Gate {
	t.Helper()
	set, err := Parse("f.yaml", []byte(file(assertions)))
	if err != nil {
		t.Fatal(err)
	}
	return &Gate{Sets: []Set{set}}
}

func TestGate(t *testing.T) {
	t.Parallel()
	if err := new(Gate).Check(world()); err != nil {
		t.Errorf("the zero Gate refuses: %v", err)
	}
	g := gateOf(t, `    allow:
    - {from: prod/api, to: prod/db, port: tcp/5432}
    - {from: test/nobody, to: prod/db, port: tcp/5432}
  - name: b
    deny:
    - {from: test/api, to: prod/db, port: tcp/5432}
`)
	if err := g.Check(world()); err != nil {
		t.Errorf("refused: %v", err)
	}
	var unchecked []string
	g.Unchecked = func(r Result) { unchecked = append(unchecked, r.Flow()) }
	open := world()
	open.Policies = nil
	err := g.Check(open)
	if want := `f.yaml:12: assertion "b": test/api -> prod/db tcp/5432 (IPv4): want deny, got allow: ingress of prod/db: no policy decided and the namespace's profile allows (and 1 more flows)`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if d := cmp.Diff([]string{"test/nobody -> prod/db tcp/5432"}, unchecked); d != "" {
		t.Errorf("unchecked, -want +got:\n%s", d)
	}
	if err := g.Check(world()); err != nil {
		t.Errorf("refused after it was mended: %v", err)
	}
}

// TestGateRefusesWhatNobodyKnows: where the evaluators differ, the state is not to
// be trusted.
func TestGateRefusesWhatNobodyKnows(t *testing.T) {
	t.Parallel()
	err := new(Gate).refusal([]Result{{Path: "f", Line: 1, Assertion: "a", From: "x/y", To: "x/z", Port: "tcp/1", Status: Bug, Why: "they differ"}})
	if want := `f:1: assertion "a": x/y -> x/z tcp/1: they differ`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestGateErrorIsBounded: it goes to a log, and whoever writes policy could fill it.
func TestGateErrorIsBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("    deny:\n    - {from: prod/api, to: prod/db, port: tcp/1}\n")
	for i := range 50 {
		fmt.Fprintf(&text, "  - name: n%d\n    deny:\n    - {from: prod/api, to: prod/db, port: tcp/1}\n", i)
	}
	s := world()
	s.Policies[0].Name = strings.Repeat("é", 5000)
	err := gateOf(t, text.String()).Check(s)
	if err == nil || !strings.HasSuffix(err.Error(), "; and 46 more assertions") {
		t.Errorf("got %v", err)
	}
	if n := len(err.Error()); n > maxListed*(maxFlowText+100) {
		t.Errorf("%d bytes", n)
	}
	if strings.ToValidUTF8(err.Error(), "") != err.Error() {
		t.Error("a character was cut in two")
	}
}

// TestPure: judging leaves the snapshot alone and always answers the same.
func TestPure(t *testing.T) {
	t.Parallel()
	s := world()
	text := "    deny:\n    - {from: [{selector: all()}, 0.0.0.0/0], to: [prod/db, {namespace: test}], ports: [tcp/1, icmp:8]}\n"
	first := checkText(t, s, text)
	if d := cmp.Diff(first, checkText(t, s, text)); d != "" || len(first) == 0 {
		t.Errorf("-first +second:\n%s", d)
	}
	want := world()
	want.Generation = s.Generation
	if d := cmp.Diff(want.Endpoints, s.Endpoints, cmp.Comparer(func(a, b policy.Endpoint) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); d != "" {
		t.Errorf("the snapshot changed:\n%s", d)
	}
}
