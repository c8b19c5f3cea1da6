package filter

import (
	"slices"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/trie"
)

// Request is what a proxy in front of a pod tells of one request, or of one
// connection.
type Request struct {
	// Tuple is the connection as the pod sees it: who opened it, and the pod's own
	// address and port.
	Tuple flow.Tuple
	// Source and Destination are the ends of the mutual TLS connection.
	Source, Destination Peer
	// HTTP is set if Method and Path were told. A connection that is not HTTP
	// satisfies every criterion of methods and paths.
	HTTP         bool
	Method, Path string
}

// Peer is what one end of a connection showed.
type Peer struct {
	Certificate Certificate
	// Namespace and Name are of the service account of a valid certificate.
	Namespace, Name string
	// Labels are those that the proxy reports of it. The service account's own
	// come first. Read-only.
	Labels map[string]string
}

// Certificate tells whether an end showed one.
type Certificate uint8

const (
	// NoCertificate is plain text, and makes what rules ask of a certificate
	// vacuous.
	NoCertificate Certificate = iota
	// ValidCertificate names a service account in an accepted trust domain.
	ValidCertificate
	// InvalidCertificate is anything else.
	InvalidCertificate
)

// RequestOptions are choices of the operator. The zero RequestOptions are the
// defaults of spec section 9.
type RequestOptions struct {
	// RefusePlaintext denies requests whose source shows no certificate.
	RefusePlaintext bool
	// MismatchToRules lets the rules judge a request whose certificate and address
	// name different service accounts.
	MismatchToRules bool
}

// AccountMatch is what one side of a rule asks of a certificate.
type AccountMatch interface{ Holds(*Account) bool }

// RequestMatch is what a rule asks of a request beyond its Tuple.
type RequestMatch struct {
	// Source and Destination are nil where nothing is asked. Without a certificate
	// they hold.
	Source, Destination AccountMatch
	// Methods are compared literally, and "*" is any; empty is any.
	Methods []string
	// Paths are any of which must hold; empty is any.
	Paths []PathMatch
}

// PathMatch is a path, as the rule writes it, or with Below one and everything
// below it, on whole segments.
type PathMatch struct {
	Path  string
	Below bool
}

// holds tells whether everything but paths does.
func (m *RequestMatch) holds(r *resolved) bool {
	if m.Source != nil && r.source != nil && !m.Source.Holds(r.source) {
		return false
	}
	if m.Destination != nil && r.destination != nil && !m.Destination.Holds(r.destination) {
		return false
	}
	if len(m.Methods) > 0 && r.http && !slices.Contains(m.Methods, r.method) && !slices.Contains(m.Methods, "*") {
		return false
	}
	return true
}

// resolved is a request as rules are asked about it.
type resolved struct {
	subject
	source, destination *Account // nil for plain text
	http                bool
	method              string
	path                string // normal, empty if refused
	accounts            [2]Account
	found               []int32 // scratch
	log                 func(RuleID)
}

// DecideRequest decides a request at the application layer (spec section 9): the
// ingress side of the pod it is for, by address and by certificate. Every rule asks
// here for what it asks of packets, and more. The packets of the connection are
// decided besides, so that a request passes only where both say so; a rule that
// denies packets by address is not undone by a certificate.
func (rs *Ruleset) DecideRequest(req *Request, opt RequestOptions) (o Outcome) {
	rs.decideRequest(req, opt, nil, &o)
	return o
}

// RequestLogRules appends the rules with action Log that the request matches on
// its way to a decision, and returns the extended slice. It is meant for requests
// whose outcome says Logged.
func (rs *Ruleset) RequestLogRules(req *Request, opt RequestOptions, dst []RuleID) []RuleID {
	var o Outcome
	rs.decideRequest(req, opt, func(id RuleID) { dst = append(dst, id) }, &o)
	return dst
}

func (rs *Ruleset) decideRequest(req *Request, opt RequestOptions, log func(RuleID), o *Outcome) {
	q, ok := rs.query(&req.Tuple)
	if !ok {
		o.Reason = InvalidTuple
		return
	}
	if q.src.end == endConflict || q.dst.end == endConflict {
		o.Reason = AddressConflict
		return
	}
	if req.HTTP && (req.Path == "" || req.Path[0] != '/') {
		o.Reason = InvalidRequest
		return
	}
	r := resolved{http: req.HTTP, method: req.Method, log: log}
	for i, end := range [...]*Peer{&req.Source, &req.Destination} {
		at := req.Tuple.Src
		if i == 1 {
			at = req.Tuple.Dst
		}
		switch {
		case end.Certificate == NoCertificate:
			continue
		case end.Certificate != ValidCertificate:
			o.Reason = InvalidPrincipal
			return
		case !opt.MismatchToRules:
			if ep, known := rs.Endpoint(at); known && (ep.Namespace != end.Namespace || ep.ServiceAccount != end.Name) {
				o.Reason = IdentityMismatch
				return
			}
		}
		r.accounts[i] = Account{Namespace: end.Namespace, Name: end.Name, Reported: end.Labels}
		rs.accounts.describe(&r.accounts[i])
	}
	if req.Source.Certificate == ValidCertificate {
		r.source = &r.accounts[0]
	} else if opt.RefusePlaintext {
		o.Reason = Plaintext
		return
	}
	if req.Destination.Certificate == ValidCertificate {
		r.destination = &r.accounts[1]
	}
	if q.dst.end < firstEnd {
		o.Reason = NoLocalEndpoint
		return
	}
	if req.HTTP {
		r.path, _ = NormalizePath(req.Path)
	}
	r.subject = rs.subject(&q)
	rs.runRequest(&rs.ends[q.dst.end<<1|uint32(flow.Ingress)], &q, &r, o)
}

// runRequest walks a program, as run does.
func (rs *Ruleset) runRequest(p *program, q *query, r *resolved, o *Outcome) {
	for seg := range p.segments {
		id, logged := rs.matchRequest(seg, q, r)
		o.Logged = o.Logged || logged
		if id == 0 {
			if seg.end != 0 {
				o.Rule, o.Reason = seg.end, EndOfTier
				return
			}
			continue
		}
		if a := rs.rules[id].action; a != Pass {
			if a == Allow {
				o.Verdict = Accept
			}
			o.Rule, o.Reason = id, ByRule
			return
		}
	}
	if p.final == FinalAllow {
		o.Verdict, o.Reason = Accept, ByProfile
		return
	}
	o.Reason = NoProfile
}

// matchRequest gives the first rule of a segment that the request matches and that
// does not merely log. A rule asks of a request what it asks of a packet and
// possibly more. So the rule that the packet would match is where to begin, and
// for most requests where to end.
func (rs *Ruleset) matchRequest(seg *segment, q *query, r *resolved) (id RuleID, logged bool) {
	outcome, logged := seg.match(rs, q, q.src.signature)
	if outcome != goOn && outcome&outcomeEnd == 0 {
		id = RuleID(outcome >> outcomeRule)
	}
	switch {
	case id == 0 && !logged:
		return 0, false
	case seg.request == nil && r.log == nil:
		return id, logged
	}
	from := 0 // if some rule logs before, its certificate criteria are still to be asked
	if !logged && seg.request != nil {
		from = int(seg.request.position[id])
	}
	logged = false
	for i := range seg.request.candidates(seg, from, r) {
		id := seg.rules[i]
		rule := rs.rules[id]
		if !rule.matches(&r.subject) || rule.request != nil && !rule.request.holds(r) {
			continue
		}
		if rule.action != Log {
			return id, logged
		}
		logged = true
		if r.log != nil {
			r.log(id)
		}
	}
	return 0, logged
}

// requestTable finds the rules of a segment by the path of a request. It is nil
// where no rule asks more of requests than of packets.
type requestTable struct {
	paths    trie.Paths       // positions of the rules that state paths
	plain    []int32          // of the others, rising
	position map[RuleID]int32 // the first of each
}

func newRequestTable(rules []RuleID, all []*rule) *requestTable {
	if !slices.ContainsFunc(rules, func(id RuleID) bool { return all[id].request != nil }) {
		return nil
	}
	t := &requestTable{position: make(map[RuleID]int32, len(rules))}
	for i, id := range slices.Backward(rules) {
		t.position[id] = int32(i)
	}
	for i, id := range rules {
		m := all[id].request
		if m == nil || len(m.Paths) == 0 {
			t.plain = append(t.plain, int32(i))
			continue
		}
		for _, p := range m.Paths {
			if path, ok := NormalizePath(p.Path); ok {
				t.paths.Put(path, p.Below, int32(i))
			}
		}
	}
	return t
}

// candidates yields, rising, the positions from the given one on of the rules whose
// paths hold for the request.
func (t *requestTable) candidates(seg *segment, from int, r *resolved) func(func(int) bool) {
	return func(yield func(int) bool) {
		if t == nil || !r.http || t.paths.Len() == 0 && len(t.plain) == len(seg.rules) {
			for i := from; i < len(seg.rules); i++ {
				if !yield(i) {
					return
				}
			}
			return
		}
		found := r.found[:0]
		if r.path != "" {
			found = t.paths.Find(r.path, found)
		}
		slices.Sort(found)
		r.found = slices.Compact(found)
		plain, found := after(t.plain, from), after(r.found, from)
		for len(plain)+len(found) > 0 {
			next := &plain
			if len(plain) == 0 || len(found) > 0 && found[0] < plain[0] {
				next = &found
			}
			i := (*next)[0]
			*next = (*next)[1:]
			if !yield(int(i)) {
				return
			}
		}
	}
}

// after gives the elements of a rising list from n on.
func after(list []int32, n int) []int32 {
	i, _ := slices.BinarySearch(list, int32(n))
	return list[i:]
}
