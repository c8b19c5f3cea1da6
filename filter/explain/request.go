package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// Request is what a sidecar tells of one request, or of one connection.
type Request struct {
	Source, Destination Peer
	// HTTP is nil for a connection that is not HTTP, which satisfies every http
	// criterion.
	HTTP *HTTP
}

// Peer is one end of the mutual TLS connection.
type Peer struct {
	// Principal is the identity of the certificate; empty for plain text.
	Principal string
	// Labels are those the sidecar reports. The service account's own labels
	// overlay them.
	Labels map[string]string
}

// HTTP is a request's method and path, as received.
type HTTP struct{ Method, Path string }

// Status is an answer to the sidecar, by its gRPC name. The zero Status is no
// answer and must not be taken for OK.
type Status string

const (
	StatusOK               Status = "OK"
	StatusPermissionDenied Status = "PERMISSION_DENIED"
	StatusInvalidArgument  Status = "INVALID_ARGUMENT"
)

// RequestTrace is the explanation of one request.
type RequestTrace struct {
	Generation  uint64   `json:"generation"`
	Tuple       Tuple    `json:"tuple"`
	Source      Identity `json:"source"`
	Destination Identity `json:"destination"`
	Status      Status   `json:"status"`
	Reason      Reason   `json:"reason"`
	// Detail says what was wrong where no rule was read.
	Detail string `json:"detail,omitempty"`
	// Ingress is the destination's side; its zero value stands if no rule was
	// read.
	Ingress Side `json:"ingress"`
}

// account is what a valid principal names, with the labels selectors see.
type account struct {
	namespace, name string
	labels          selector.Map // peer labels (section 9.2)
	namespaceLabels selector.Map
}

// peers is what a request adds to a packet. An account is nil for plain text,
// which makes its certificate criteria vacuous.
type peers struct {
	source, destination *account
	http                *HTTP
}

// ExplainRequest evaluates a request at the application layer (section 9): the
// ingress side of the destination, with address and certificate criteria.
func (e *Evaluator) ExplainRequest(t flow.Tuple, req Request) RequestTrace {
	p := e.packet(t)
	tr := RequestTrace{
		Generation: e.generation, Tuple: Tuple(t),
		Source: e.identity(p.src), Destination: e.identity(p.dst),
		Status: StatusPermissionDenied,
	}
	if reason, ok := refusal(p); ok {
		tr.Reason = reason
		return tr
	}
	if h := req.HTTP; h != nil && !strings.HasPrefix(h.Path, "/") {
		tr.Status, tr.Reason = StatusInvalidArgument, InvalidRequest
		tr.Detail = fmt.Sprintf("path %q does not start with a slash", h.Path)
		return tr
	}
	from, reason, text := e.peer("source", req.Source, p.src)
	if reason != "" {
		tr.Reason, tr.Detail = reason, text
		return tr
	}
	to, reason, text := e.peer("destination", req.Destination, p.dst)
	if reason != "" {
		tr.Reason, tr.Detail = reason, text
		return tr
	}
	if from == nil && e.opt.RefusePlaintext {
		tr.Reason, tr.Detail = Plaintext, "the source shows no certificate"
		return tr
	}
	o := e.hosted(p.dst)
	if o == nil {
		tr.Reason = NoLocalEndpoint
		return tr
	}
	w := walk{
		packet: p, e: e, direction: flow.Ingress, verbose: true,
		request: &peers{source: from, destination: to, http: req.HTTP},
	}
	tr.Ingress = w.pod(o, e.enforced.selecting(o))
	tr.Reason = tr.Ingress.Reason
	if tr.Ingress.Verdict == Allow {
		tr.Status = StatusOK
	}
	return tr
}

// peer reads one end's principal. It gives nil for plain text and a reason for
// a principal that must be refused [D7].
func (e *Evaluator) peer(side string, p Peer, at place) (*account, Reason, string) {
	if p.Principal == "" {
		return nil, "", ""
	}
	domain, namespace, name, ok := parsePrincipal(p.Principal)
	if !ok {
		return nil, InvalidPrincipal,
			fmt.Sprintf("%s principal %q is not spiffe://<trust domain>/ns/<namespace>/sa/<name>", side, p.Principal)
	}
	if len(e.opt.TrustDomains) > 0 && !slices.Contains(e.opt.TrustDomains, domain) {
		return nil, InvalidPrincipal, fmt.Sprintf("%s trust domain %s is not accepted", side, domain)
	}
	if !e.opt.MismatchToRules {
		for _, o := range at.pods() {
			if o.namespace != namespace || o.serviceAccount != name {
				return nil, IdentityMismatch, fmt.Sprintf("%s certificate names service account %s/%s, but the address is %s with %s",
					side, namespace, name, describe(o), accountText(o))
			}
		}
	}
	a := &account{namespace: namespace, name: name, labels: selector.Map{}, namespaceLabels: selector.Map{}}
	maps.Copy(a.labels, p.Labels)
	if sa := e.accounts[accountKey{namespace, name}]; sa != nil {
		maps.Copy(a.labels, sa.Labels)
	}
	a.labels[nameLabel] = name
	if ns := e.namespaces[namespace]; ns != nil {
		maps.Copy(a.namespaceLabels, ns.Labels)
	}
	a.namespaceLabels[nameLabel] = namespace
	return a, "", ""
}

// parsePrincipal reads spiffe://<trust domain>/ns/<namespace>/sa/<name>, with
// nothing empty and nothing after it.
func parsePrincipal(s string) (domain, namespace, name string, ok bool) {
	rest, found := strings.CutPrefix(s, "spiffe://")
	if !found {
		return "", "", "", false
	}
	f := strings.Split(rest, "/")
	if len(f) != 5 || f[1] != "ns" || f[3] != "sa" || f[0] == "" || f[2] == "" || f[4] == "" {
		return "", "", "", false
	}
	return f[0], f[2], f[4], true
}

// certificate checks what an entity says about service account and namespace
// against the certificate (section 9.3). It comes on top of the address.
func (w *walk) certificate(n entity, a *account, m *misses) {
	if a == nil {
		return
	}
	field := n.side + ".certificate"
	if sa := n.ServiceAccounts; sa != nil {
		if len(sa.Names) > 0 && !slices.Contains(sa.Names, a.name) {
			m.add(field+".serviceAccounts.names", func() string {
				return fmt.Sprintf("%s certificate's service account %s is not in %s", n.side, a.name, listText(sa.Names))
			})
		}
		if sa.Selector != nil && !sa.Selector.Matches(a.labels) {
			m.add(field+".serviceAccounts.selector", func() string {
				return fmt.Sprintf("labels of %s certificate's service account %s/%s do not match %s", n.side, a.namespace, a.name, sa.Selector)
			})
		}
	}
	switch {
	case n.NamespaceSelector != nil:
		if !w.e.matchesNamespace(n.NamespaceSelector, a.namespaceLabels, true) {
			m.add(field+".namespaceSelector", func() string {
				return fmt.Sprintf("%s certificate's namespace %s does not match %s", n.side, a.namespace, n.NamespaceSelector)
			})
		}
	case n.namespace != "" && n.statesIdentity():
		if a.namespace != n.namespace {
			m.add(field+".namespace", func() string {
				return fmt.Sprintf("%s certificate's namespace %s is not the policy's namespace %s", n.side, a.namespace, n.namespace)
			})
		}
	}
}

// http checks methods and paths.
func (w *walk) http(h *policy.HTTPMatch, m *misses) {
	req := w.request.http
	if h == nil || req == nil {
		return
	}
	if len(h.Methods) > 0 && !slices.Contains(h.Methods, "*") && !slices.Contains(h.Methods, req.Method) {
		m.add("http.methods", func() string {
			return fmt.Sprintf("method %s is not in %s", req.Method, listText(h.Methods))
		})
	}
	if len(h.Paths) > 0 && !matchesPath(h.Paths, req.Path) {
		m.add("http.paths", func() string { return fmt.Sprintf("path %q is none of %s", req.Path, pathsText(h.Paths)) })
	}
}

func pathsText(paths []policy.HTTPPath) string {
	texts := make([]string, len(paths))
	for i, p := range paths {
		texts[i] = "exact:" + p.Exact
		if p.Exact == "" {
			texts[i] = "prefix:" + p.Prefix
		}
	}
	return listText(texts)
}
