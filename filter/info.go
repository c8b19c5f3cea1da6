package filter

import (
	"net/netip"

	"github.com/postern-project/postern/filter/flow"
)

// Generation is the number of the snapshot the Ruleset was compiled from.
func (rs *Ruleset) Generation() uint64 { return rs.generation }

// RuleInfo tells where a rule comes from; the zero value for an ID that is not
// of this Ruleset.
func (rs *Ruleset) RuleInfo(id RuleID) RuleInfo {
	if int(id) >= len(rs.rules) || rs.rules[id] == nil {
		return RuleInfo{}
	}
	return rs.rules[id].info
}

// Endpoint names the pod that has the address, on any node. Of two that claim
// it, it gives a hosted one, or else the first.
func (rs *Ruleset) Endpoint(a netip.Addr) (EndpointInfo, bool) {
	i := rs.byAddr.Lookup(a)
	if i == 0 {
		return EndpointInfo{}, false
	}
	return rs.endpoints[i-1], true
}

// Protected gives the addresses of hosted endpoints whose flows in a direction
// must be decided: some policy selects the endpoint, its namespace is not known,
// or another endpoint claims the address too. Every other hosted address is open
// in that direction. Sorted; read-only.
func (rs *Ruleset) Protected(dir flow.Direction) []netip.Addr { return rs.protected[dir&1] }

// Hosted gives the addresses of the endpoints hosted here. Sorted; read-only.
func (rs *Ruleset) Hosted() []netip.Addr { return rs.hosted }

// HostsAs tells, in constant time, that the endpoints hosted here are those of another
// Ruleset, at the same addresses. It may be false although they are.
func (rs *Ruleset) HostsAs(other *Ruleset) bool { return rs.hosting == other.hosting }

// Sizes counts what a Ruleset holds.
type Sizes struct {
	Prefixes, Classes, Programs, Rules, Endpoints int
}

// Sizes gives the counts for status and metrics. Rules counts the ends of tiers
// too, and only rules that some endpoint here needs.
func (rs *Ruleset) Sizes() Sizes { return rs.sizes }
