package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

// requestFlags turn explain's question about a flow into one about a request.
type requestFlags struct {
	http, principal, server string
	trustDomains            []string
	plaintext, mismatch     string
}

func (r *requestFlags) register(f *pflag.FlagSet) {
	f.StringVar(&r.http, "http", "", `ask as a sidecar would about this request, method and path, such as "GET /health"`)
	f.StringVar(&r.principal, "principal", "", "ask as a sidecar would: SPIFFE ID of the client's certificate")
	f.StringVar(&r.server, "server-principal", "", "ask as a sidecar would: SPIFFE ID of the pod's own certificate")
	f.StringArrayVar(&r.trustDomains, "authz-trust-domain", nil, "with --http or a principal: accepted trust domain, as given to run; by default any")
	f.StringVar(&r.plaintext, "authz-plaintext", "address-only", "with --http or a principal: as given to run")
	f.StringVar(&r.mismatch, "authz-identity-mismatch", "deny", "with --http or a principal: as given to run")
}

// stated tells whether a request is asked about.
func (r *requestFlags) stated() bool { return r.http != "" || r.principal != "" || r.server != "" }

// readHTTP splits a method and a path.
func readHTTP(text string) (method, path string, err error) {
	method, path, found := strings.Cut(text, " ")
	if !found || method == "" || path == "" {
		return "", "", usageError(`--http %q: want a method and a path, such as "GET /health"`, text)
	}
	return method, path, nil
}

// explainRequest evaluates a request literally, and asks the engine and the reader of
// messages that sidecars meet.
func (c *explainConfig) explainRequest(ctx context.Context, stderr io.Writer) (trace explain.RequestTrace, err error) {
	r := &c.request
	options := authzConfig{socket: "-", trustDomains: r.trustDomains, plaintext: r.plaintext, mismatch: r.mismatch, group: -1}
	if err := options.checkChoices(); err != nil {
		return trace, err
	}
	req := explain.Request{Source: explain.Peer{Principal: r.principal}, Destination: explain.Peer{Principal: r.server}}
	if r.http != "" {
		method, path, err := readHTTP(r.http)
		if err != nil {
			return trace, err
		}
		req.HTTP = &explain.HTTP{Method: method, Path: path}
	}
	s, err := c.load(ctx, stderr)
	if err != nil {
		return trace, err
	}
	node := c.node
	if s.live != nil {
		node = s.node
	}
	t, err := c.tuple(s)
	if err != nil {
		return trace, err
	}
	if t.Proto != flow.TCP {
		return trace, usageError("--port %s: sidecars ask about TCP only", c.port)
	}
	opt := options.requestOptions()
	trace = explain.New(s.snapshot, explain.Options{
		Node: node, TrustDomains: r.trustDomains, RefusePlaintext: opt.RefusePlaintext, MismatchToRules: opt.MismatchToRules,
	}).ExplainRequest(t, req)
	rs, _ := compile.Compile(s.snapshot, compile.Options{Node: node})
	if rs == nil {
		return trace, errors.New("the engine could not compile what was explained: please report this as a bug")
	}
	q := authz.Question{
		Source: netip.AddrPortFrom(t.Src, t.SrcPort), Destination: netip.AddrPortFrom(t.Dst, t.DstPort), SourcePrincipal: r.principal, DestinationPrincipal: r.server,
	}
	if req.HTTP != nil {
		q.Method, q.Path = req.HTTP.Method, req.HTTP.Path
	}
	o, err := authz.Judge(rs, authz.Config{TrustDomains: r.trustDomains, Options: opt}, &q)
	if err != nil {
		return trace, usageError("--authz-trust-domain: %w", err)
	}
	if (o.Verdict == filter.Accept) != (trace.Status == explain.StatusOK) || o.Reason.String() != string(trace.Reason) {
		return trace, fmt.Errorf("the engine says %s (%s) where the explanation says %s (%s): please report this as a bug, with the manifests", o.Verdict, o.Reason, trace.Status, trace.Reason)
	}
	return trace, nil
}
