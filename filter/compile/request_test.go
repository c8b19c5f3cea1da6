package compile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/test/worlds"
)

// requestAnswer is what engine and oracle have to agree on.
type requestAnswer struct {
	Allowed      bool
	Reason, Rule string
	Tier         string
	Logs         []string
}

// peerOf reads a principal as the specification's grammar has it.
func peerOf(p worlds.Peer) filter.Peer {
	out := filter.Peer{Labels: p.Labels}
	if p.Principal == "" {
		return out
	}
	out.Certificate = filter.InvalidCertificate
	f := strings.Split(p.Principal, "/")
	if len(f) == 7 && f[0] == "spiffe:" && f[1] == "" && f[2] == "cluster.local" && f[3] == "ns" && f[4] != "" && f[5] == "sa" && f[6] != "" {
		out.Certificate, out.Namespace, out.Name = filter.ValidCertificate, f[4], f[6]
	}
	return out
}

func askEngine(rs *filter.Ruleset, r worlds.Request, opt filter.RequestOptions) requestAnswer {
	req := filter.Request{Tuple: r.Tuple, Source: peerOf(r.Source), Destination: peerOf(r.Destination), HTTP: r.HTTP, Method: r.Method, Path: r.Path}
	o := rs.DecideRequest(&req, opt)
	info := rs.RuleInfo(o.Rule)
	a := requestAnswer{Allowed: o.Verdict == filter.Accept, Reason: o.Reason.String(), Rule: ruleText(info), Tier: info.Tier}
	logs := rs.RequestLogRules(&req, opt, nil)
	if o.Logged != (len(logs) > 0) {
		a.Logs = []string{"logged does not tell whether rules log"}
	}
	for _, id := range logs {
		a.Logs = append(a.Logs, ruleText(rs.RuleInfo(id)))
	}
	return a
}

func askOracle(e *explain.Evaluator, r worlds.Request) requestAnswer {
	req := explain.Request{
		Source:      explain.Peer{Principal: r.Source.Principal, Labels: r.Source.Labels},
		Destination: explain.Peer{Principal: r.Destination.Principal, Labels: r.Destination.Labels},
	}
	if r.HTTP {
		req.HTTP = &explain.HTTP{Method: r.Method, Path: r.Path}
	}
	tr := e.ExplainRequest(r.Tuple, req)
	a := requestAnswer{Allowed: tr.Status == explain.StatusOK, Reason: string(tr.Reason), Rule: refText(tr.Ingress.Rule), Tier: tr.Ingress.Tier}
	for i := range tr.Ingress.Logs {
		a.Logs = append(a.Logs, refText(&tr.Ingress.Logs[i]))
	}
	return a
}

// TestRequestsAgreeWithOracle compares what the engine says of requests with the
// literal evaluation of the same snapshot, also after changes, and what it says of
// connections without certificates with what it says of their packets.
func TestRequestsAgreeWithOracle(t *testing.T) {
	t.Parallel()
	for _, node := range []string{"", "n1", "n2"} {
		t.Run("node "+node, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				d := draw{rt}
				c := New(Options{Node: node})
				s := d.snapshot()
				for range 2 {
					rs, _ := c.Apply(s)
					var opts [4]filter.RequestOptions
					var oracles [4]*explain.Evaluator
					for i := range opts {
						opts[i] = filter.RequestOptions{RefusePlaintext: i&1 != 0, MismatchToRules: i&2 != 0}
						oracles[i] = explain.New(s, explain.Options{
							TrustDomains: []string{"cluster.local"}, Node: node, RefusePlaintext: opts[i].RefusePlaintext, MismatchToRules: opts[i].MismatchToRules,
						})
					}
					for i := range 2 * flowsPerWorld {
						opt, oracle := opts[i%4], oracles[i%4]
						r := d.from().Request(s)
						want, got := askOracle(oracle, r), askEngine(rs, r, opt)
						if diff := cmp.Diff(want, got); diff != "" {
							rt.Fatalf("%+v (-oracle +engine):\n%s", r, diff)
						}
						bare := filter.Request{Tuple: r.Tuple}
						o := rs.DecideSide(r.Tuple, flow.Ingress)
						o.BySource = false // it is about what the kernel may remember
						if !opt.RefusePlaintext && o.Reason != filter.NotHosted && rs.DecideRequest(&bare, opt) != o {
							rt.Fatalf("%s: a connection without certificates is decided otherwise than its packets", r.Tuple)
						}
					}
					s = d.next(s)
				}
			})
		})
	}
}

// TestRequestWorldsAreWorthIt keeps the generator honest.
func TestRequestWorldsAreWorthIt(t *testing.T) {
	t.Parallel()
	reasons := make(map[string]int)
	total, narrowed, logged := 0, 0, 0
	gen := rapid.Custom(func(rt *rapid.T) int {
		d := draw{rt}
		s := d.snapshot()
		rs, _ := Compile(s, Options{})
		for range flowsPerWorld {
			r := d.from().Request(s)
			a := askEngine(rs, r, filter.RequestOptions{RefusePlaintext: total%5 == 0, MismatchToRules: total%3 == 0})
			total++
			reasons[a.Reason]++
			if len(a.Logs) > 0 {
				logged++
			}
			packet := rs.DecideSide(r.Tuple, flow.Ingress)
			if (a.Reason == "rule" || a.Reason == "end-of-tier") && packet.Verdict == filter.Accept && !a.Allowed {
				narrowed++
			}
		}
		return 0
	})
	for seed := range 60 {
		gen.Example(seed)
	}
	for _, r := range []string{"rule", "end-of-tier", "profile", "no-profile", "invalid-request", "invalid-principal", "identity-mismatch", "plaintext", "no-local-endpoint", "address-conflict"} {
		if reasons[r]*400 < total {
			t.Errorf("reason %s: %d of %d requests, want at least one in 400", r, reasons[r], total)
		}
	}
	if narrowed*100 < total || logged*400 < total {
		t.Errorf("of %d requests, rules narrowed %d and logged %d", total, narrowed, logged)
	}
	t.Log(reasons, total, narrowed, logged)
}
