package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/observe"
)

func decided(nano int64, v filter.Verdict, pod string) *flowlog.Event {
	return &flowlog.Event{
		UnixNano: nano, Verdict: v, Reason: filter.ByRule,
		Tuple: flow.Tuple{
			Src: netip.MustParseAddr("10.0.0.9"), Dst: netip.MustParseAddr("10.0.0.1"), Proto: flow.TCP,
			Ported: true, SrcPort: 4000, DstPort: 80,
		},
		Src: filter.EndpointInfo{Namespace: "ns", Name: pod, ServiceAccount: "sa-" + pod},
	}
}

func nowhere() (State, bool) { return State{}, false }

// until fails the test if f does not become true.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 20 s: " + what)
		}
	}
}

// TestObserve: the last that match, then those that come.
func TestObserve(t *testing.T) {
	var feed observe.Feed
	c := NewClient(serveFeed(t, nowhere, &feed))
	for i := range int64(6) {
		feed.Decided(decided(i, filter.Verdict(i%2), fmt.Sprint("p", i)))
	}
	var got []string
	enough := errors.New("enough")
	each := func(n int) func(observe.Line) error {
		return func(l observe.Line) error {
			if got = append(got, l.Verdict+" "+l.SrcPod+" "+l.SrcAccount); len(got) == n {
				return enough
			}
			return nil
		}
	}
	if err := c.Observe(t.Context(), observe.Filter{Verdicts: []string{"deny"}}, 2, false, each(99)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"deny ns/p2 sa-p2", "deny ns/p4 sa-p4"}, got); d != "" {
		t.Errorf("the last two denied (-want +got):\n%s", d)
	}
	got = nil
	done := make(chan error)
	go func() {
		done <- c.Observe(t.Context(), observe.Filter{Pods: []string{"ns/p5", "ns/p7"}}, 10, true, each(2))
	}()
	for i := int64(6); ; i++ { // the client begins to watch at some time
		feed.Decided(decided(i, filter.Accept, fmt.Sprint("p", 6+i%2)))
		select {
		case err := <-done:
			if !errors.Is(err, enough) {
				t.Error(err)
			}
			if d := cmp.Diff([]string{"allow ns/p5 sa-p5", "allow ns/p7 sa-p7"}, got); d != "" {
				t.Errorf("followed (-want +got):\n%s", d)
			}
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// TestObserveOutlastsTheServersDeadlines: a stream on which nothing happens stays, and
// ends with the daemon or with the client.
func TestObserveOutlastsTheServersDeadlines(t *testing.T) {
	t.Parallel()
	var feed observe.Feed
	path := t.TempDir() + "/s"
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- Serve(ctx, l, Daemon{Current: nowhere, Status: func() Status { return Status{} }, Feed: &feed})
	}()

	got, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- NewClient(path).Observe(t.Context(), observe.Filter{}, 0, true, func(l observe.Line) error { got <- l.SrcPod; return nil })
	}()
	time.Sleep(readTimeout + time.Second)
	feed.Decided(decided(1, filter.Drop, "late"))
	select {
	case pod := <-got:
		if pod != "ns/late" {
			t.Errorf("got %q", pod)
		}
	case err := <-ended:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	stop()
	if err := <-ended; !errors.Is(err, ErrUnreachable) {
		t.Errorf("the daemon ended: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestObserversAreBounded: no more than so many watch; the others, and those who ask
// something else, are answered; a place is free again when its client has gone.
func TestObserversAreBounded(t *testing.T) {
	var feed observe.Feed
	path := serveFeed(t, nowhere, &feed)
	var stop []context.CancelFunc
	for range observe.MaxWatches {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stop = append(stop, cancel)
		begun := make(chan bool, 1)
		go NewClient(path).Observe(ctx, observe.Filter{}, 1, true, func(observe.Line) error {
			select {
			case begun <- true:
			default:
			}
			return nil
		})
		until(t, "it watches", func() bool {
			feed.Decided(decided(1, filter.Drop, "p"))
			return len(begun) > 0
		})
	}
	one := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return NewClient(path).Observe(ctx, observe.Filter{}, 1, true, func(observe.Line) error { return io.EOF })
	}
	if err := one(); err == nil || !strings.Contains(err.Error(), "no more may at once") {
		t.Errorf("one more: %v", err)
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("status beside them: %v", err)
	}
	stop[0]()
	until(t, "a place is free", func() bool { return errors.Is(one(), io.EOF) })
}

// TestHostileObservers: clients that take nothing of what they are sent, or leave in the
// middle of it, cost themselves events and nobody else anything.
func TestHostileObservers(t *testing.T) {
	var feed observe.Feed
	path := serveFeed(t, nowhere, &feed)
	request := func(query string) net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /v1/observe?%s HTTP/1.1\r\nHost: x\r\n\r\n", query)
		return c
	}
	for range observe.MaxWatches - 1 { // deaf ones
		c := request("last=9&follow=true")
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 12)); err != nil { // it has begun
			t.Fatal(err)
		}
	}
	for range 50 { // ones that leave
		request("last=1024&follow=false").Close()
	}
	// One that reads gets everything, in order, or is told how much it misses.
	const n = 50_000
	heard := make(chan uint64, 1)
	begun := make(chan bool, 1)
	var lines, missed uint64
	go func() {
		last := int64(-1)
		_ = NewClient(path).Observe(t.Context(), observe.Filter{Pods: []string{"ns/seen"}}, 1, true, func(l observe.Line) error {
			select {
			case begun <- true:
			default:
			}
			if l.Missed > 0 {
				missed += l.Missed
			} else {
				if i := l.Decided.UnixNano(); i < last {
					t.Errorf("%d after %d", i, last)
				} else {
					last = i
				}
				lines++
			}
			if lines+missed >= n+1 {
				heard <- missed
				return io.EOF
			}
			return nil
		})
	}()
	feed.Decided(decided(0, filter.Drop, "seen"))
	until(t, "it watches", func() bool { return len(begun) > 0 })
	for i := range int64(n) {
		feed.Decided(decided(1+i, filter.Verdict(i%2), "seen"))
	}
	select {
	case m := <-heard:
		t.Logf("missed %d of %d", m, n)
	case <-time.After(30 * time.Second):
		t.Fatalf("heard of %d and missed %d of %d", lines, missed, n)
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTellsWhatWasMissed: a client that was deaf for a while is told how much it missed.
func TestTellsWhatWasMissed(t *testing.T) {
	var feed observe.Feed
	c, err := net.Dial("unix", serveFeed(t, nowhere, &feed))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /v1/observe?last=0&follow=true HTTP/1.0\r\n\r\n")
	if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
		t.Fatal(err)
	}
	const n = 20_000 // more than the socket and the buffer hold
	for i := range int64(n) {
		feed.Decided(decided(i, filter.Drop, "p"))
	}
	feed.Missed(1000)
	var lines, missed uint64
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for d := json.NewDecoder(afterHeader(c)); lines+missed < n+1000; {
		var l observe.Line
		if err := d.Decode(&l); err != nil {
			t.Fatalf("after %d lines and %d missed: %v", lines, missed, err)
		}
		if missed += l.Missed; l.Missed == 0 {
			lines++
		}
	}
	if missed < 1001 || lines < 100 {
		t.Errorf("%d lines and %d missed", lines, missed)
	}
}

// afterHeader gives what follows the header of an answer in HTTP/1.0.
func afterHeader(r io.Reader) io.Reader {
	var end [4]byte
	for string(end[:]) != "\r\n\r\n" {
		copy(end[:], end[1:])
		if _, err := r.Read(end[3:]); errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return r
}

func TestBadObserveRequests(t *testing.T) {
	c := NewClient(serve(t, nowhere))
	for query, want := range map[string]string{
		"":                      `last "": want a number`,
		"last=-1":               `last "-1"`,
		"last=1&verdict=maybe":  `verdict "maybe": want allow, deny or pending`,
		"last=1&pod=web":        `pod "web": want NAMESPACE/NAME`,
		"last=1&account=/x":     `account "/x"`,
		"last=1&policy=a/b/c":   `policy "a/b/c"`,
		"last=1&reason=because": `reason "because": want one of not-ready`,
		"last=1&address=10.0.0": `address "10.0.0"`,
		"last=1" + strings.Repeat("&reason=rule", 65): "64 at most",
	} {
		r, err := c.do(t.Context(), http.MethodGet, "/v1/observe?"+query, nil)
		if err == nil {
			r.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "400") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
