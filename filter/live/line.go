package live

import (
	"net/netip"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
)

// endFields names an end of a flow as the other lines of the flow log do.
func endFields(l *zerolog.Event, side string, rs *filter.Ruleset, a netip.Addr) *zerolog.Event {
	l = l.Stringer(side, a)
	if ep, ok := rs.Endpoint(a); ok {
		l = l.Str(side+"_pod", ep.Namespace+"/"+ep.Name).Str(side+"_account", ep.ServiceAccount)
	}
	return l
}

// rate bounds lines per second. It is for one goroutine.
type rate struct {
	second     int64
	lines      int
	suppressed uint64
	lost       uint64
	said       int64 // second in which losses were said last
}

// over begins a new second if it is one, and tells how many the last one left out.
func (r *rate) over(now time.Time) (suppressed uint64) {
	if s := now.Unix(); s != r.second {
		suppressed = r.suppressed
		r.second, r.lines, r.suppressed = s, 0, 0
	}
	return suppressed
}

// take is false if no line is left of this second.
func (r *rate) take(perSecond int) bool {
	if perSecond > 0 && r.lines >= perSecond {
		r.suppressed++
		return false
	}
	r.lines++
	return true
}

// missed counts a loss, and tells once a second of how many there is something to say.
func (r *rate) missed(now time.Time) (n uint64) {
	r.lost++
	if s := now.Unix(); s != r.said {
		n, r.lost, r.said = r.lost, 0, s
	}
	return n
}
