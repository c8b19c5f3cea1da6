package worlds

import (
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Request is what a proxy asks about one request.
type Request struct {
	Tuple               flow.Tuple
	Source, Destination Peer
	HTTP                bool
	Method, Path        string
}

// Peer is one end's certificate.
type Peer struct {
	Principal string // as a proxy gives it; empty for plain text
	Labels    map[string]string
}

var (
	someMethods = []string{"GET", "POST", "get", "*"}
	somePaths   = []string{"/", "/v1", "/v1/", "/v1/users", "/v10", "/a%2", "/V1", "/v1;x/users", "/v1//users/.", "/v1/../v10", "/x%20y", "/v1/%2575sers", "/%3F"}
	// askedPaths are what rules do not say but requests do.
	askedPaths = append([]string{
		"/v1/users/7?q=/v10", "/v1#/v10", "/v1/%2e%2e/v10", "/v1/%252e%252e/v10", "/v1%2fusers", "/v1%252fusers", `/v1\users`, "/v1%5Cusers", "/v1%255cusers",
		"/v1/..;a/v10", "/v1%00", "/%", "/v1%zz", "v1", "", "*", "/v1/us%65rs", "/x y", "/../../v1", "/v1/%25users", "/%3f",
	}, somePaths...)
)

// http draws the http clause of a rule.
func (d Draw) http() *policy.HTTPMatch {
	m := &policy.HTTPMatch{Methods: some(d, 2, someMethods)}
	for _, p := range some(d, 3, somePaths) {
		if d.Chance(50) {
			m.Paths = append(m.Paths, policy.HTTPPath{Exact: p})
		} else {
			m.Paths = append(m.Paths, policy.HTTPPath{Prefix: p})
		}
	}
	return m
}

// addHTTP gives rules http clauses where admission allows them.
func (d Draw) addHTTP(rules []policy.Rule) {
	for i := range rules {
		r := &rules[i]
		if r.Action == policy.Allow && (r.Protocol == nil || r.Protocol.Number == flow.TCP) && d.Chance(35) {
			r.HTTP = d.http()
		}
	}
}

// Request draws a request, mostly one whose certificates are those of its pods.
func (d Draw) Request(s *policy.Snapshot) Request {
	r := Request{Tuple: d.Tuple(s), HTTP: d.Chance(75)}
	r.Source, r.Destination = d.peer(s, r.Tuple.Src.String()), d.peer(s, r.Tuple.Dst.String())
	if r.HTTP {
		r.Method, r.Path = One(d, someMethods), One(d, askedPaths)
	}
	return r
}

func (d Draw) peer(s *policy.Snapshot, at string) (p Peer) {
	if d.Chance(25) {
		return p
	}
	if d.Chance(30) {
		p.Labels = d.labels()
	}
	namespace, account := One(d, someNamespaces), One(d, someAccounts)
	if d.Chance(75) {
		for _, ep := range s.Endpoints {
			for _, a := range ep.Addrs {
				if a.String() == at {
					namespace, account = ep.Namespace, ep.ServiceAccount
				}
			}
		}
	}
	p.Principal = "spiffe://cluster.local/ns/" + namespace + "/sa/" + account
	if d.Chance(8) {
		p.Principal = One(d, []string{
			"http://cluster.local/ns/a/sa/sa", "spiffe://cluster.local/ns/a/sa/sa/x", "spiffe://cluster.local/ns//sa/sa", "spiffe:///ns/a/sa/sa",
			"spiffe://cluster.local/ns/a/sa/", "spiffe://cluster.local/ns/a/sa/web/", "sa", "spiffe://other.domain/ns/a/sa/sa", "spiffe://cluster.local/sa/a/ns/sa",
		})
	}
	return p
}
