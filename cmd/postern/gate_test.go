package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/dataplane"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/metrics"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/internal/notify"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// TestGatekeeper follows a directory through changes: what is admitted, and what
// is said, once each.
func TestGatekeeper(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	path := assertions(t, "db is closed", "    deny: [{from: [prod-engineering/reports, no/body], to: prod-engineering/db, port: tcp/5432, family: 4}]\n")
	g, err := newGatekeeper([]string{path}, zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	good, err := loadValid(exampleManifests)
	if err != nil {
		t.Fatal(err)
	}
	change := func(policies []*policy.Policy) *policy.Snapshot {
		s := *good
		s.Generation++
		s.Policies = policies
		return &s
	}
	open, again, mended := change(nil), change(nil), change(good.Policies)

	const refusedAtFirst, refused, mendedNow, unchecked = "policy breaks an assertion, nothing is applied until it holds",
		"change breaks an assertion and is refused as a whole, the last good state stays in force", "assertions hold again", "assertion cannot be checked"
	for i, step := range []struct {
		s      *policy.Snapshot
		admits bool
		says   []string
	}{
		{open, false, []string{unchecked, refusedAtFirst}},
		{open, false, nil},
		{good, true, []string{mendedNow}},
		{good, true, nil},
		{open, false, []string{refused}},
		{again, false, []string{refused}},
		{mended, true, []string{mendedNow}},
	} {
		log.Reset()
		if got := g.admits(step.s); got != step.admits {
			t.Errorf("step %d: admits %v", i, got)
		}
		var said []string
		for line := range strings.Lines(log.String()) {
			_, message, _ := strings.Cut(strings.TrimSpace(line), `"message":"`)
			said = append(said, strings.TrimSuffix(message, `"}`))
			if strings.Contains(line, "breaks") && !strings.Contains(line, `assertion \"db is closed\": prod-engineering/reports -> prod-engineering/db tcp/5432 (IPv4): want deny, got allow`) {
				t.Errorf("step %d: the assertion and its flow are not named: %s", i, line)
			}
		}
		if d := cmp.Diff(step.says, said); d != "" {
			t.Errorf("step %d: -want +got:\n%s", i, d)
		}
	}
	none, err := newGatekeeper(nil, zerolog.Nop())
	if err != nil || !none.admits(open) {
		t.Errorf("without assertions: %v", err)
	}
}

// readSource is a source that has read everything.
type readSource struct{}

func (readSource) Run(context.Context) error { return nil }
func (readSource) Synced() <-chan struct{}   { c := make(chan struct{}); close(c); return c }

// kernelOf is a kernel that is told states, and that was in no epoch before.
type kernelOf func(nft.State) error

func (k kernelOf) Apply(s nft.State) error      { return k(s) }
func (k kernelOf) Distrust()                    {}
func (k kernelOf) Epoch() (uint32, bool, error) { return 0, false, nil }

// noFlows is a kernel without flows.
type noFlows struct{}

func (noFlows) Forget(int) error { return nil }

func (noFlows) Judge(*filter.Ruleset, uint32, []netip.Addr, bool, []netip.Addr) error { return nil }

// TestRefusalDoesNotEndRetry: a state that is admitted and fails half way through
// is applied again, although a later one is refused meanwhile. Until then the
// kernel may protect less than it should.
func TestRefusalDoesNotEndRetry(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	gate, err := newGatekeeper([]string{assertions(t, "a", holding)}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := file.Load(exampleManifests)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{log: zerolog.Nop(), engine: &filter.Engine{}, store: k8ssync.NewStore(), source: readSource{}, gate: gate, first: make(chan struct{}), metrics: metrics.New(metrics.Build{}, nil), supervisor: &notify.Supervisor{}, flows: flowlog.NewWriter(zerolog.Nop(), flowlog.Config{})}
	d.store.Replace(objects)
	var changes [][]netip.Addr
	d.applier = dataplane.New(d.engine, kernelOf(func(s nft.State) error {
		changes = append(changes, s.Ingress)
		if len(changes) > 1 {
			cancel()
			return nil
		}
		for _, o := range objects {
			if _, isPolicy := o.Value.(*policy.Policy); isPolicy {
				d.store.Delete(o.Key)
			}
		}
		return errors.New("busy")
	}), noFlows{}, nil, dataplane.Options{Epochs: 32})
	if err := d.apply(ctx); err != nil {
		t.Fatal(err)
	}
	if len(changes) != 2 || len(changes[1]) == 0 || !slices.Equal(changes[0], changes[1]) {
		t.Errorf("the kernel was told %v, want the same protected addresses twice", changes)
	}
}

// TestRunWithBadAssertions: what cannot be read is no start.
func TestRunWithBadAssertions(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"no-such-file", assertions(t, "a", "    deny: []\n")} {
		code, _, errs := cli(t, "run", "--source", exampleManifests, "--assertions", path)
		if code != exitUsage || !strings.Contains(errs, path) {
			t.Errorf("%s: exit code %d, said %q", path, code, errs)
		}
	}
}
