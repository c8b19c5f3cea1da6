package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/postern-project/postern/bench/gen"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/policy"
)

// world is a server with policy in force, and requests for its pods.
type world struct {
	snapshot  *policy.Snapshot
	server    *authz.Server
	engine    *filter.Engine
	questions []authz.Question
	messages  []*authv3.CheckRequest
	encoded   [][]byte
}

// headers are what a browser and a mesh send.
var headers = map[string]string{
	":authority": "orders.shop.svc.cluster.local:8080", ":scheme": "https", "accept": "application/json, text/plain, */*", "accept-encoding": "gzip, deflate, br",
	"accept-language": "en-GB,en;q=0.9", "content-type": "application/json", "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
	"x-forwarded-proto": "https", "x-request-id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "x-b3-traceid": "80f198ee56343ba864fe8b2a57d3eff7", "x-b3-spanid": "e457b5a2e4d86bd1",
	"x-b3-sampled": "1", "x-envoy-attempt-count": "1", "x-forwarded-client-cert": "By=spiffe://cluster.local/ns/shop/sa/orders;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;URI=spiffe://cluster.local/ns/shop/sa/web",
	"authorization": "Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJodHRwczovL2lzc3VlciIsInN1YiI6IngifQ.c2lnbmF0dXJl",
}

var somePaths = []string{"/", "/v1/orders", "/v1/orders/4711?expand=lines", "/v1/customers/17/addresses", "/health", "/v1/%6frders/..", "/static/app.js"}

// clusterWorld is a cluster of 100,000 pods with so many rules, of which every second
// ingress rule that allows states methods and paths.
func clusterWorld(rules int) (*world, error) {
	w := gen.Cluster(rules, false)
	rnd := rand.New(rand.NewPCG(7, 7))
	addHTTP(w.Snapshot, rnd)
	return newWorld(w, rnd, func() string { return somePaths[rnd.IntN(len(somePaths))] })
}

// onePodWorld has one pod to which all rules apply.
func onePodWorld(rules int) (*world, error) {
	w := gen.OnePod(rules)
	rnd := rand.New(rand.NewPCG(7, 8))
	addHTTP(w.Snapshot, rnd)
	return newWorld(w, rnd, func() string { return somePaths[rnd.IntN(len(somePaths))] })
}

// pathsWorld has one pod, and as many policies, each of which allows everybody one
// path: the packets match the first, and the requests one or none.
func pathsWorld(rules int) (*world, error) {
	w := gen.OnePod(10)
	subject := w.Snapshot.Policies[0].Selector
	w.Snapshot.Policies = nil
	path := func(i int) string { return fmt.Sprintf("/v1/tenants/%d/orders", i) }
	for i := range rules {
		w.Snapshot.Policies = append(w.Snapshot.Policies, &policy.Policy{
			Kind: policy.GlobalNetworkPolicy, Name: fmt.Sprintf("p-%06d", i), Tier: policy.DefaultTier, Order: 1000, Selector: subject, AppliesIngress: true,
			Ingress: []policy.Rule{{Action: policy.Allow, HTTP: &policy.HTTPMatch{Methods: []string{"GET"}, Paths: []policy.HTTPPath{{Prefix: path(i)}}}}},
		})
	}
	rnd := rand.New(rand.NewPCG(7, 9))
	return newWorld(w, rnd, func() string { return path(rnd.IntN(rules*11/10)) + "/17" })
}

func addHTTP(s *policy.Snapshot, rnd *rand.Rand) {
	for _, p := range s.Policies {
		for i := range p.Ingress {
			if r := &p.Ingress[i]; r.Action == policy.Allow && (r.Protocol == nil || r.Protocol.Number == 6) && rnd.IntN(2) == 0 {
				r.HTTP = &policy.HTTPMatch{Methods: []string{"GET", "HEAD"}, Paths: []policy.HTTPPath{{Prefix: "/v1/orders"}, {Exact: "/health"}}}
			}
		}
	}
}

func newWorld(g *gen.World, rnd *rand.Rand, path func() string) (*world, error) {
	s := g.Snapshot
	s.Generation = 1
	rs, problems := compile.Compile(s, compile.Options{Node: gen.LocalNode})
	if rs == nil {
		return nil, fmt.Errorf("compile: %v", problems)
	}
	w := &world{snapshot: s, engine: &filter.Engine{}}
	w.engine.Swap(rs)
	var err error
	if w.server, err = authz.New(w.engine, authz.Config{TrustDomains: []string{"cluster.local"}}); err != nil {
		return nil, err
	}
	for _, f := range g.Flows {
		t := f.Tuple()
		at, ok := rs.Endpoint(t.Dst)
		if !ok || !at.Hosted || f.Proto != 6 || len(w.questions) == 1<<15 {
			continue
		}
		q := authz.Question{Source: netip.AddrPortFrom(t.Src, t.SrcPort), Destination: netip.AddrPortFrom(t.Dst, t.DstPort), Method: "GET", Path: path()}
		if rnd.IntN(10) == 0 {
			q.Method = "POST"
		}
		if from, ok := rs.Endpoint(t.Src); ok {
			q.SourcePrincipal = "spiffe://cluster.local/ns/" + from.Namespace + "/sa/" + from.ServiceAccount
		}
		q.DestinationPrincipal = "spiffe://cluster.local/ns/" + at.Namespace + "/sa/" + at.ServiceAccount
		m := q.CheckRequest()
		h := m.Attributes.Request.Http
		h.Headers = map[string]string{":method": q.Method, ":path": q.Path}
		for k, v := range headers {
			h.Headers[k] = v
		}
		h.Id, h.Host, h.Scheme, h.Protocol = "7285927361", headers[":authority"], "https", "HTTP/2"
		b, err := proto.Marshal(m)
		if err != nil {
			return nil, err
		}
		w.questions, w.messages, w.encoded = append(w.questions, q), append(w.messages, m), append(w.encoded, b)
	}
	if len(w.questions) < 1000 {
		return nil, fmt.Errorf("only %d requests", len(w.questions))
	}
	return w, nil
}

// check compares answers with the literal evaluator's.
func (w *world) check() error {
	e := explain.New(w.snapshot, explain.Options{Node: gen.LocalNode, TrustDomains: []string{"cluster.local"}})
	ok := 0
	step := max(1, len(w.questions)/500)
	for i := 0; i < len(w.questions); i += step {
		q := &w.questions[i]
		o, err := authz.Judge(w.engine.Ruleset(), authz.Config{TrustDomains: []string{"cluster.local"}}, q)
		if err != nil {
			return err
		}
		t := gen.NewTuple()
		t.Src, t.Dst, t.SrcPort, t.DstPort, t.Proto = q.Source.Addr(), q.Destination.Addr(), q.Source.Port(), q.Destination.Port(), 6
		tr := e.ExplainRequest(t, explain.Request{
			Source: explain.Peer{Principal: q.SourcePrincipal}, Destination: explain.Peer{Principal: q.DestinationPrincipal}, HTTP: &explain.HTTP{Method: q.Method, Path: q.Path},
		})
		if (tr.Status == explain.StatusOK) != (o.Verdict == filter.Accept) || string(tr.Reason) != o.Reason.String() {
			return fmt.Errorf("%+v: the engine says %s (%s), the literal evaluator %s (%s)", q, o.Verdict, o.Reason, tr.Status, tr.Reason)
		}
		if o.Verdict == filter.Accept {
			ok++
		}
	}
	if ok == 0 || ok == len(w.questions) {
		return fmt.Errorf("%d of the requests are allowed: nothing is decided", ok)
	}
	return nil
}
