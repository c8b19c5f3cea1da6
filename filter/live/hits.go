package live

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
)

// Hits tells of flows that the kernel decides from its caches, which no verdict loop sees:
// in all, and in the log, a line each interval for all that are alike.
type Hits struct {
	Log    zerolog.Logger
	Cached *nft.Cached
	View   func() *View
	// Interval is between lines.
	Interval time.Duration
	// Allowed and Denied say which of them get lines.
	Allowed, Denied bool

	allowed, denied atomic.Uint64
	begun           time.Time
	said, total     nft.Totals
	groups          map[group]uint64
	shown           [2]uint64 // packets of groups, of allowed and denied ones
}

// group is what flows have in common that share a line: accounts, or addresses where
// there is no pod, protocol and port.
type group struct {
	allowed  bool
	proto    flow.Proto
	port     uint16
	src, dst who
}

type who struct {
	namespace, account string
	addr               netip.Addr // valid if it is no pod's
}

const (
	// maxGroups bounds lines and memory.
	maxGroups = 4096
	// readEvery is between readings of the caches: ways that were denied stay for five
	// seconds only.
	readEvery = 2 * time.Second
	// share is the part of the time, one in so many, that reading may take. A full cache of
	// the default size takes 0.3 s.
	share = 50
)

// Totals are the packets that were decided from the caches since Run began, as they were
// read last, two seconds ago at most while the caches are of common size. Any goroutine
// may ask.
func (h *Hits) Totals() nft.Totals {
	return nft.Totals{Allowed: h.allowed.Load(), Denied: h.denied.Load()}
}

// Run reads and writes until ctx ends.
func (h *Hits) Run(ctx context.Context) error {
	h.groups, h.begun = map[group]uint64{}, time.Now()
	if t, err := h.Cached.Totals(); err == nil {
		h.total, h.said = t, t // of a process before
	}
	first := h.total
	failing := false
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			h.write(time.Now())
			return nil
		case <-time.After(wait):
		}
		start := time.Now()
		err := h.read()
		if err != nil && !failing {
			h.Log.Warn().Err(err).Msg("flow log: cannot read what the kernel decided from its caches")
		}
		failing = err != nil
		h.allowed.Store(h.total.Allowed - first.Allowed)
		h.denied.Store(h.total.Denied - first.Denied)
		if start.Sub(h.begun) >= h.Interval {
			h.write(start)
		}
		wait = max(readEvery, share*time.Since(start))
	}
}

func (h *Hits) read() error {
	if h.Allowed || h.Denied {
		v := h.View()
		if err := h.Cached.Read(h.Allowed, h.Denied, func(hit nft.Hits) {
			if v != nil {
				h.add(v.Ruleset, &hit)
			}
		}); err != nil {
			return fmt.Errorf("read caches: %w", err)
		}
	}
	// After the elements, so that they never come to more.
	t, err := h.Cached.Totals()
	h.total = t
	return err
}

func (h *Hits) add(rs *filter.Ruleset, hit *nft.Hits) {
	g := group{allowed: hit.Allowed, proto: flow.Proto(hit.Proto), port: hit.DstPort, src: whoHas(rs, hit.Src), dst: whoHas(rs, hit.Dst)}
	if _, known := h.groups[g]; !known && len(h.groups) == maxGroups {
		return // written with those of ways that are not known
	}
	h.groups[g] += hit.Packets
	h.shown[kind(hit.Allowed)] += hit.Packets
}

// kind is 0 for allowed, 1 for denied.
func kind(allowed bool) int {
	if allowed {
		return 0
	}
	return 1
}

func whoHas(rs *filter.Ruleset, a netip.Addr) who {
	if ep, ok := rs.Endpoint(a); ok {
		return who{namespace: ep.Namespace, account: ep.ServiceAccount}
	}
	return who{addr: a}
}

// write writes the lines of an interval, the busiest first, and begins the next.
func (h *Hits) write(now time.Time) {
	seconds := now.Sub(h.begun).Seconds()
	sorted := make([]group, 0, len(h.groups))
	for g := range h.groups {
		sorted = append(sorted, g)
	}
	slices.SortFunc(sorted, func(a, b group) int {
		return cmp.Or(cmp.Compare(h.groups[b], h.groups[a]), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	for _, g := range sorted {
		l := h.Log.Info().Str("verdict", verdictOf(g.allowed)).Stringer("proto", g.proto)
		l = whoFields(l, "src", g.src)
		l = whoFields(l, "dst", g.dst)
		l.Uint16("dport", g.port).Uint64("flows", h.groups[g]).Float64("seconds", seconds).Msg("flows from the kernel's cache")
	}
	for k, wanted := range [2]bool{h.Allowed, h.Denied} {
		all := [2]uint64{h.total.Allowed - h.said.Allowed, h.total.Denied - h.said.Denied}[k]
		// Ways left the cache before they were read, or had no room here.
		if wanted && all > h.shown[k] {
			h.Log.Info().Str("verdict", verdictOf(k == 0)).Uint64("flows", all-h.shown[k]).Float64("seconds", seconds).Msg("flows from the kernel's cache, of ways that are not known")
		}
	}
	h.begun, h.said = now, h.total
	h.shown = [2]uint64{}
	clear(h.groups)
}

func verdictOf(allowed bool) string {
	if allowed {
		return filter.Accept.String()
	}
	return filter.Drop.String()
}

func whoFields(l *zerolog.Event, side string, w who) *zerolog.Event {
	if w.addr.IsValid() {
		return l.Stringer(side, w.addr)
	}
	return l.Str(side+"_namespace", w.namespace).Str(side+"_account", w.account)
}
