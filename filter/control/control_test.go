package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/observe"
	"github.com/postern-project/postern/filter/policy"
)

func state(t testing.TB, generation uint64) State {
	t.Helper()
	rs, err := filter.New(&filter.Spec{
		Generation: generation,
		Prefixes:   []filter.ClassPrefix{{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Class: 1}},
		Classes:    []filter.Class{{}, {Hosted: true}},
		Programs:   []filter.Program{{Final: filter.FinalAllow}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return State{
		Snapshot: &policy.Snapshot{Generation: generation, Namespaces: []*policy.Namespace{{Name: "ns"}}},
		Ruleset:  rs, Node: "node-7",
	}
}

// serve runs a server on a socket of its own until the test ends.
func serve(t *testing.T, current func() (State, bool)) (path string) {
	t.Helper()
	return serveFeed(t, current, &observe.Feed{})
}

func serveFeed(t *testing.T, current func() (State, bool), feed *observe.Feed) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "postern.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	status := func() Status {
		s, ok := current()
		return Status{Node: s.Node, Enforcing: ok, Source: "test"}
	}
	go func() { done <- Serve(ctx, l, Daemon{Current: current, Status: status, Feed: feed, Flows: list}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	})
	return path
}

func TestAsk(t *testing.T) {
	s := state(t, 3)
	path := serve(t, func() (State, bool) { return s, true })
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o660 {
		t.Errorf("mode %v, want 0660", got)
	}
	c := NewClient(path)
	got, node, err := c.Snapshot(t.Context())
	if err != nil || node != "node-7" {
		t.Fatalf("%q, %v", node, err)
	}
	if d := cmp.Diff(s.Snapshot, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, tc := range []struct {
		src  string
		want Decision
	}{
		{"10.0.0.1", Decision{3, "allow", "profile", "egress"}},
		{"10.0.0.9", Decision{3, "deny", "no-local-endpoint", "ingress"}},
	} {
		d, err := c.Decide(t.Context(), flow.Tuple{Src: netip.MustParseAddr(tc.src), Dst: netip.MustParseAddr("10.0.0.8"), Proto: flow.TCP})
		if err != nil || d != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", tc.src, d, err, tc.want)
		}
	}
}

func TestBeforeTheFirstState(t *testing.T) {
	path := serve(t, func() (State, bool) { return State{}, false })
	if _, _, err := NewClient(path).Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing is in force yet") {
		t.Errorf("%v", err)
	}
}

// TestStatus: the status can be asked before anything is in force.
func TestStatus(t *testing.T) {
	st, err := NewClient(serve(t, func() (State, bool) { return State{}, false })).Status(t.Context())
	if err != nil || st.Enforcing || st.Source != "test" {
		t.Errorf("before: %+v, %v", st, err)
	}
	s := state(t, 3)
	st, err = NewClient(serve(t, func() (State, bool) { return s, true })).Status(t.Context())
	if err != nil || !st.Enforcing || st.Node != "node-7" {
		t.Errorf("after: %+v, %v", st, err)
	}
}

func TestListen(t *testing.T) {
	path := serve(t, func() (State, bool) { return State{}, false })
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another daemon answers there") {
		t.Errorf("a second daemon: %v", err)
	}
	// What a killed daemon leaves is replaced.
	stale := filepath.Join(t.TempDir(), "stale.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := Listen(stale)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, _, err := NewClient(stale).Snapshot(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
}

// TestHostileClients: whatever a client sends or keeps back, others are answered.
func TestHostileClients(t *testing.T) {
	var generation atomic.Uint64
	generation.Store(1)
	path := serve(t, func() (State, bool) { return state(t, generation.Load()), true })
	for range maxConns - 1 { // silent, for as long as the test lasts
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for _, text := range []string{
		"\x00\x01\x02\r\n\r\n",
		"GET /v1/snapshot HTTP/9.9\r\n\r\n",
		"POST /v1/decide HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{\"a\"",
		"GET /" + strings.Repeat("x", 1<<16) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(text))
		c.Close()
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*readTimeout+5*time.Second)
			defer cancel()
			if _, _, err := NewClient(path).Snapshot(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
}

func TestBadRequests(t *testing.T) {
	s := state(t, 1)
	path := serve(t, func() (State, bool) { return s, true })
	c := NewClient(path)
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/decide", "", 400},
		{"POST", "/v1/decide", `{"Src":"10.0.0.1","Sorce":1}`, 400},
		{"POST", "/v1/decide", `{"Src":"` + strings.Repeat("1", maxRequest) + `"}`, 400},
		{"GET", "/v1/decide", "", 405},
		{"GET", "/", "", 404},
	} {
		r, err := http.NewRequest(tc.method, "http://x"+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s %s: status %d, want %d", tc.method, tc.path, resp.StatusCode, tc.status)
		}
	}
	// An impossible flow is a flow all the same, and denied.
	if d, err := c.Decide(t.Context(), flow.Tuple{}); err != nil || fmt.Sprint(d) != "{1 deny invalid-tuple ingress}" {
		t.Errorf("%v, %v", d, err)
	}
}

// TestStoppedDaemon: one that takes connections and does not answer is none.
func TestStoppedDaemon(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(path)
	c.http.Transport.(*http.Transport).ResponseHeaderTimeout = time.Millisecond
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "does not begin to answer") {
		t.Errorf("got %v", err)
	}
}
