package observe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/flowlog"
)

func event(nano int64, v filter.Verdict) *flowlog.Event {
	return &flowlog.Event{
		UnixNano: nano, Verdict: v, Reason: filter.ByRule,
		Tuple: flow.Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("fd00::1"), Proto: flow.TCP, Ported: true, DstPort: 80},
		Src:   filter.EndpointInfo{Namespace: "a", Name: "web", ServiceAccount: "web-sa"},
		Rule:  filter.RuleInfo{Tier: "default", Kind: "NetworkPolicy", Namespace: "b", Name: "db", Index: 2},
	}
}

// TestKept: accepted ones do not push denials out, and both are given by time.
func TestKept(t *testing.T) {
	t.Parallel()
	var f Feed
	f.Decided(event(1, filter.Drop))
	for i := range int64(3 * Kept) {
		f.Decided(event(2+i, filter.Accept))
	}
	f.Decided(event(5*Kept, filter.Drop))
	all := f.Last(1<<30, &Filter{})
	if len(all) != Kept+2 || all[0].UnixNano != 1 || all[1].UnixNano != 2+2*Kept || all[Kept+1].UnixNano != 5*Kept {
		t.Errorf("%d events, the first of %d, then %d, the last of %d", len(all), all[0].UnixNano, all[1].UnixNano, all[len(all)-1].UnixNano)
	}
	if got := f.Last(1, &Filter{Verdicts: []string{"deny"}}); len(got) != 1 || got[0].UnixNano != 5*Kept {
		t.Errorf("%v", got)
	}
	if got := f.Last(0, &Filter{}); len(got) != 0 {
		t.Errorf("asked for none and got %d", len(got))
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	e := event(1, filter.Accept)
	e.Pending = &flowlog.Pending{Verdict: filter.Drop, Rule: filter.RuleInfo{Kind: "StagedGlobalNetworkPolicy", Name: "soon"}}
	for _, tc := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Verdicts: []string{"allow"}}, true},
		{Filter{Verdicts: []string{"deny"}}, false},
		{Filter{Verdicts: []string{"deny", "pending"}}, true},
		{Filter{Pods: []string{"a/web"}}, true},
		{Filter{Pods: []string{"a/"}}, true},
		{Filter{Pods: []string{"a/we"}}, false},
		{Filter{Pods: []string{"b/web"}}, false},
		{Filter{Accounts: []string{"a/web-sa"}}, true},
		{Filter{Accounts: []string{"a/web"}}, false},
		{Filter{Policies: []string{"b/db"}}, true},
		{Filter{Policies: []string{"db"}}, false},
		{Filter{Policies: []string{"soon"}}, true},
		{Filter{Reasons: []string{"rule"}, Policies: []string{"x", "b/db"}}, true},
		{Filter{Reasons: []string{"end-of-tier"}, Policies: []string{"b/db"}}, false},
		{Filter{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/31")}}, true},
		{Filter{Addresses: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}}, true},
		{Filter{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}}, false},
	} {
		if err := tc.f.Check(); err != nil {
			t.Errorf("%+v: %v", tc.f, err)
		}
		if got := tc.f.Matches(e); got != tc.want {
			t.Errorf("%+v: %v, want %v", tc.f, got, tc.want)
		}
		back, err := FilterOf(tc.f.Values())
		if d := cmp.Diff(tc.f, back, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" || err != nil {
			t.Errorf("through a query (-want +got): %v\n%s", err, d)
		}
	}
	stranger := event(1, filter.Drop)
	stranger.Src = filter.EndpointInfo{}
	for _, f := range []Filter{{Pods: []string{"a/"}}, {Accounts: []string{"a/"}}} {
		if f.Matches(stranger) {
			t.Errorf("%+v takes an address that is no pod's", f)
		}
	}
}

// TestWatchesCountWhatTheyMiss: with writers and readers at once, every event that
// matches is given or counted, and in order.
func TestWatchesCountWhatTheyMiss(t *testing.T) {
	t.Parallel()
	var f Feed
	const n = 20_000
	var readers sync.WaitGroup
	for i := range MaxWatches {
		w, _, err := f.Watch(0, Filter{})
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			defer w.Close()
			var got, missed uint64
			last := int64(-1)
			var events []flowlog.Event
			for got+missed < n {
				if i%2 == 0 {
					f.Last(Kept, &Filter{}) // a slow one
				}
				var m uint64
				var err error
				if events, m, err = w.Next(t.Context(), events); err != nil {
					t.Error(err)
					return
				}
				got, missed = got+uint64(len(events)), missed+m
				if len(events) > buffer {
					t.Errorf("%d waited", len(events))
				}
				for _, e := range events {
					if e.UnixNano <= last {
						t.Errorf("%d after %d", e.UnixNano, last)
					}
					last = e.UnixNano
				}
			}
			if got+missed != n {
				t.Errorf("%d and missed %d of %d", got, missed, n)
			}
		})
	}
	if _, _, err := f.Watch(0, Filter{}); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	for i := range int64(n) {
		f.Decided(event(i, filter.Drop))
	}
	readers.Wait()
	w, _, err := f.Watch(0, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.Next(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestNobodyWatches: without watchers an event costs no allocation once the kept ones
// are there.
func TestNobodyWatches(t *testing.T) {
	var f Feed
	e := event(1, filter.Drop)
	for range Kept {
		f.Decided(e)
	}
	if n := testing.AllocsPerRun(100, func() { f.Decided(e) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func ExampleLineOf() {
	l := LineOf(event(0, filter.Drop))
	fmt.Println(l.Verdict, l.Proto, l.SrcPod, l.Dst, *l.DstPort, l.PolicyKind, l.Policy, *l.Rule)
	// Output: deny tcp a/web fd00::1 80 NetworkPolicy b/db 2
}
