package saved

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// state has an object of every kind.
func state() *policy.Snapshot {
	return &policy.Snapshot{
		Generation: 9,
		Tiers:      []policy.Tier{{Name: "t", Order: 5, DefaultAction: policy.Pass}},
		Policies: []*policy.Policy{{Kind: policy.NetworkPolicy, Namespace: "a", Name: "p", Tier: "t", Order: policy.Unordered, AppliesIngress: true,
			Selector: selector.MustParse(`app == "x"`), Ingress: []policy.Rule{{Action: policy.Allow, Source: policy.EntityRule{Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}}}},
		Profiles:        []*policy.Profile{{Name: "pr", LabelsToApply: map[string]string{"k": "v"}}},
		Namespaces:      []*policy.Namespace{{Name: "a", Labels: map[string]string{"k": "v\n"}}},
		ServiceAccounts: []*policy.ServiceAccount{{Namespace: "a", Name: "sa"}},
		Endpoints:       []*policy.Endpoint{{Namespace: "a", Name: "p", UID: "u", Addrs: []netip.Addr{netip.MustParseAddr("fd00::1")}, Ports: []policy.NamedPort{{Name: "web", Proto: flow.TCP, Port: 80}}}},
		HostEndpoints:   []*policy.HostEndpoint{{Name: "h", Node: "n", InterfaceName: "*"}},
		NetworkSets:     []*policy.NetworkSet{{Kind: policy.GlobalNetworkSet, Name: "s", Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		EndpointSlices:  []*policy.EndpointSlice{{Namespace: "a", Name: "s", Service: "svc", Ports: []policy.ServicePort{{Proto: flow.UDP, Port: 53}}}},
	}
}

var bySelector = cmp.Comparer(func(a, b *selector.Selector) bool {
	return (a == nil) == (b == nil) && (a == nil || a.String() == b.String())
})

func TestWriteRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lib", "state")
	for range 2 { // the second time over the first
		if err := Write(path, "n1", state()); err != nil {
			t.Fatal(err)
		}
	}
	s, h, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(state(), s, bySelector, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("-written +read:\n%s", d)
	}
	if h.Node != "n1" || h.Generation != 9 || !h.ThisBoot() || time.Since(h.Time) > time.Hour {
		t.Errorf("header %+v", h)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Every way in which a file may be damaged is refused.
func TestDamage(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := encode(&b, Header{Format: format, Policy: policy.Format, Node: "n1"}, state()); err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	if _, _, err := decode(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for n := range good { // the newline at the end is no loss
		if s, _, err := decode(bytes.NewReader(good[:n])); (err == nil || s != nil) && n < len(good)-1 {
			t.Errorf("cut off after %d of %d bytes: no error", n, len(good))
		}
		for _, bit := range []byte{1, 0x20} {
			bad := bytes.Clone(good)
			bad[n] ^= bit
			if s, _, err := decode(bytes.NewReader(bad)); (err == nil || s != nil) && n < len(good)-1 {
				t.Errorf("byte %d (%q) changed to %q: no error", n, good[n], bad[n])
			}
		}
	}
	lines := strings.SplitAfter(string(good), "\n")
	for i := range lines[:len(lines)-2] {
		without := strings.Join(append(append([]string(nil), lines[:i]...), lines[i+1:]...), "")
		if _, _, err := decode(strings.NewReader(without)); err == nil {
			t.Errorf("without line %d: no error", i+1)
		}
	}
	if _, _, err := decode(strings.NewReader(string(good) + string(good))); err == nil {
		t.Error("twice: no error")
	}
}

func TestRefusesOthers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		header Header
		says   string
	}{
		"of a later version":       {Header{Format: format + 1, Policy: policy.Format}, "format 2.1"},
		"with later kinds of rule": {Header{Format: format, Policy: policy.Format + 1}, "format 1.2"},
	} {
		var b bytes.Buffer
		if err := encode(&b, tc.header, state()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := decode(&b); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", name, err, tc.says)
		}
	}
	if _, _, err := decode(strings.NewReader("")); err == nil {
		t.Error("an empty file: no error")
	}
	if _, _, err := Read(filepath.Join(t.TempDir(), "no")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A Keeper writes each new state and the last one at its end, and says once that it
// cannot.
func TestKeeper(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	var log bytes.Buffer
	k := NewKeeper(path, "n1", zerolog.New(&log))
	k.every = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	states := make(chan *policy.Snapshot, 2)
	first, last := state(), state()
	last.Generation = 10
	states <- first
	states <- last
	done := make(chan struct{})
	go func() {
		k.Run(ctx, func() *policy.Snapshot { return <-states })
		close(done)
	}()
	for len(states) > 1 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if _, h, err := Read(path); err != nil || h.Generation != 10 {
		t.Errorf("generation %d, %v; want 10", h.Generation, err)
	}

	blocked := NewKeeper(filepath.Join(path, "below-a-file"), "n1", zerolog.New(&log))
	ended, end := context.WithCancel(t.Context())
	end()
	blocked.Run(ended, func() *policy.Snapshot { return first })
	if n := strings.Count(log.String(), "older state"); n != 1 {
		t.Errorf("said %d times that it cannot write:\n%s", n, log.String())
	}
}
