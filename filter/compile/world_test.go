package compile

import (
	"net/netip"

	"pgregory.net/rapid"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/test/worlds"
)

// draw takes random worlds and choices from a rapid test.
type draw struct{ *rapid.T }

func (d draw) from() worlds.Draw { return worlds.Draw{T: d.T} }

func (d draw) snapshot() *policy.Snapshot          { return d.from().Snapshot() }
func (d draw) tuple(s *policy.Snapshot) flow.Tuple { return d.from().Tuple(s) }
func (d draw) below(n int) int                     { return d.from().Below(n) }
func (d draw) chance(percent int) bool             { return d.from().Chance(percent) }
func one[E any](d draw, from []E) E                { return worlds.One(d.from(), from) }

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addresses(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}
