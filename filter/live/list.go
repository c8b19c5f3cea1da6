package live

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter/flow"
)

// Filter says which flows are asked for. The zero value asks for all that were judged.
type Filter struct {
	// Pod and Account are "namespace/name" and match either end.
	Pod, Account string
	// Proto is a protocol's number, if HasProto.
	Proto    flow.Proto
	HasProto bool
	// Port is the receiver's, or that of the service that was spoken to; 0 for any.
	Port uint16
	// Unjudged asks also for flows of pods of this node of which nothing is remembered:
	// those of pods that no policy is about, and those that were not judged yet. The kernel
	// then sends its whole table, and not only what postern has marked.
	Unjudged bool
	// Limit bounds how many are shown; 0 is without limit.
	Limit int
}

// Summary is what there is to say at the end of a list.
type Summary struct {
	// Shown were shown, and More would have been without the limit.
	Shown int `json:"shown"`
	More  int `json:"more"`
	// Entries of the kernel's table of flows, and how many it has room for.
	Entries int `json:"entries"`
	Room    int `json:"room"`
	// Accounting: new flows' packets and bytes are counted. Timestamps: when they begin is
	// noted.
	Accounting bool `json:"accounting"`
	Timestamps bool `json:"timestamps"`
}

// List shows the flows that a filter asks for, in no order, as they were when the kernel's
// table was walked. A flow that begins or ends meanwhile may be shown or not, and one may be
// shown twice. It ends early with ctx, or with an error of show.
func List(ctx context.Context, v *View, f Filter, show func(*Flow) error) (s Summary, err error) {
	if s.Entries, s.Room, err = conntrack.Size(); err != nil {
		return s, err
	}
	if s.Accounting, s.Timestamps, err = conntrack.Accounting(); err != nil {
		return s, err
	}
	c, err := conntrack.Dial()
	if err != nil {
		return s, err
	}
	defer c.Close()
	asked := conntrack.Filter{}
	if !f.Unjudged {
		asked.Mark, asked.Mask = v.Marks.AnyHalf()
	}
	var failed error
	now := time.Now()
	_, err = c.Sweep(asked, func(e *conntrack.Entry) conntrack.Action {
		if failed != nil { // the kernel is not to be stopped in a walk
			return conntrack.Keep()
		}
		if failed = ctx.Err(); failed != nil || !f.wants(v, e) {
			return conntrack.Keep()
		}
		if f.Limit > 0 && s.Shown == f.Limit {
			s.More++
			return conntrack.Keep()
		}
		s.Shown++
		shown := v.Describe(e, v.Ruleset, now)
		failed = show(&shown)
		return conntrack.Keep()
	})
	if failed != nil {
		return s, failed
	}
	if err != nil {
		return s, fmt.Errorf("list flows: %w", err)
	}
	return s, nil
}

func (f *Filter) wants(v *View, e *conntrack.Entry) bool {
	t := e.Tuple()
	if f.HasProto && t.Proto != f.Proto {
		return false
	}
	if f.Port != 0 && t.DstPort != f.Port && e.Original.DstPort != f.Port {
		return false
	}
	src, srcKnown := v.Ruleset.Endpoint(t.Src)
	dst, dstKnown := v.Ruleset.Endpoint(t.Dst)
	if _, _, judged := v.Marks.Judged(e.Mark); !judged && !src.Hosted && !dst.Hosted {
		return false
	}
	if f.Pod != "" && !(srcKnown && src.Namespace+"/"+src.Name == f.Pod) && !(dstKnown && dst.Namespace+"/"+dst.Name == f.Pod) {
		return false
	}
	return f.Account == "" || srcKnown && src.Namespace+"/"+src.ServiceAccount == f.Account || dstKnown && dst.Namespace+"/"+dst.ServiceAccount == f.Account
}
