package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/live"
)

// list shows as many flows as the filter's port says, with what was asked for in them.
func list(ctx context.Context, f live.Filter, show func(*live.Flow) error) (s live.Summary, err error) {
	for i := range int(f.Port) {
		if err := show(&live.Flow{Proto: fmt.Sprintf("%+v", f), Src: live.End{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}); err != nil {
			return s, err
		}
	}
	if f.Port == 13 {
		return s, errors.New("the kernel will not")
	}
	return live.Summary{Shown: int(f.Port)}, nil
}

// TestFlows: what is asked for arrives as it was asked, and a list of any length comes
// through whole.
func TestFlows(t *testing.T) {
	c := NewClient(serve(t, func() (State, bool) { return State{}, false }))
	for _, f := range []live.Filter{
		{},
		{Port: 1, Pod: "a/b&port=9", Account: "ns/sa"},
		{Port: 40000, HasProto: true},
		{Port: 2, Proto: flow.UDP, HasProto: true, Unjudged: true, Limit: 7},
	} {
		var got []string
		s, err := c.Flows(t.Context(), f, func(shown *live.Flow) error {
			got = append(got, shown.Proto)
			return nil
		})
		if err != nil || s.Shown != int(f.Port) || len(got) != int(f.Port) {
			t.Errorf("%+v: %d flows, %+v, %v", f, len(got), s, err)
		}
		if len(got) > 0 && got[len(got)-1] != fmt.Sprintf("%+v", f) {
			t.Errorf("asked for %+v, the daemon understood %s", f, got[0])
		}
	}
	if _, err := c.Flows(t.Context(), live.Filter{Port: 13}, func(*live.Flow) error { return nil }); err == nil || !strings.Contains(err.Error(), "the kernel will not") {
		t.Errorf("a list that failed: %v", err)
	}
	enough := errors.New("enough")
	for range 3 * maxLists { // who goes away leaves room for others
		if _, err := c.Flows(t.Context(), live.Filter{Port: 60000}, func(*live.Flow) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%v", err)
		}
	}
}

func TestFlowsRefuses(t *testing.T) {
	c := NewClient(serve(t, func() (State, bool) { return State{}, false }))
	got := map[string]string{}
	for _, q := range []string{"port=65536", "port=-1", "protocol=nonsense", "limit=many", "unjudged=perhaps", "pid=1"} {
		_, err := c.do(t.Context(), "GET", "/v1/flows?"+q, nil)
		if err == nil || !strings.Contains(err.Error(), "400") {
			t.Errorf("%s: %v", q, err)
			continue
		}
		name, _, _ := strings.Cut(q, "=")
		if !strings.Contains(err.Error(), fmt.Sprintf("parameter %q", name)) {
			got[q] = err.Error()
		}
	}
	if d := cmp.Diff(map[string]string{}, got); d != "" {
		t.Errorf("refusals that do not name the parameter: %s", d)
	}
}
