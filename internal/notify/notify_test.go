package notify

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// supervisor listens as one and names itself in the environment.
func supervisor(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return c
}

// next reads one message and what came with it.
func next(t *testing.T, c *net.UnixConn) (text string, fds []int) {
	t.Helper()
	b, oob := make([]byte, 1024), make([]byte, 256)
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, on, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	list, err := syscall.ParseSocketControlMessage(oob[:on])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		got, err := syscall.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(b[:n]), fds
}

func TestMessages(t *testing.T) {
	c := supervisor(t)
	s, _, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if v, set := os.LookupEnv("NOTIFY_SOCKET"); set {
		t.Errorf("NOTIFY_SOCKET is left for children: %q", v)
	}
	for _, tc := range []struct {
		send func() error
		want string
	}{
		{s.Ready, "READY=1"},
		{s.Alive, "WATCHDOG=1"},
		{s.Stopping, "STOPPING=1"},
		{func() error { return s.Status("one\ntwo") }, "STATUS=one two"},
		{func() error { return s.Forget("queue-1") }, "FDSTOREREMOVE=1\nFDNAME=queue-1"},
	} {
		if err := tc.send(); err != nil {
			t.Fatal(err)
		}
		if got, _ := next(t, c); got != tc.want {
			t.Errorf("sent %q, want %q", got, tc.want)
		}
	}
}

// TestStore: what arrives is the same open file.
// TestSendersAtOnce: the watchdog is fed while others tell of a start. The race
// detector looks on.
func TestSendersAtOnce(t *testing.T) {
	c := supervisor(t)
	s, _, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	const senders, each = 4, 3 // what waits is bounded by net.unix.max_dgram_qlen
	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for range each {
				if err := s.Alive(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range senders * each {
		next(t, c)
	}
	all.Wait()
}

func TestStore(t *testing.T) {
	c := supervisor(t)
	s, _, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Store("queue-100", int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	text, fds := next(t, c)
	if want := "FDSTORE=1\nFDNAME=queue-100\nFDPOLL=0"; text != want || len(fds) != 1 {
		t.Fatalf("got %q with %d descriptors, want %q and one", text, len(fds), want)
	}
	defer unix.Close(fds[0])
	if _, err := unix.Write(fds[0], []byte("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 1 {
		t.Errorf("another file: %v, %v", info, err)
	}
}

func TestNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s, stored, err := FromEnvironment()
	if err != nil || len(stored) != 0 || s.Watchdog() != 0 {
		t.Fatalf("%v, %v, %v", s, stored, err)
	}
	if err := s.Store("a", 0); err != nil {
		t.Error(err)
	}
}

func TestGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	s, _, err := FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "READY=1") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	for _, tc := range []struct {
		name, variable, value string
		more                  []string
		says                  string
		watchdog              time.Duration
	}{
		{"watchdog", "WATCHDOG_USEC", "2000000", nil, "", 2 * time.Second},
		{"watchdog of ours", "WATCHDOG_USEC", "5", []string{"WATCHDOG_PID", me}, "", 5 * time.Microsecond},
		{"watchdog of another", "WATCHDOG_USEC", "5", []string{"WATCHDOG_PID", "1"}, "", 0},
		{"watchdog too long", "WATCHDOG_USEC", "9223372036854775807", nil, "WATCHDOG_USEC", 0},
		{"no number", "WATCHDOG_USEC", "soon", nil, "WATCHDOG_USEC", 0},
		{"relative", "NOTIFY_SOCKET", "here", nil, "NOTIFY_SOCKET", 0},
		{"count", "LISTEN_FDS", "many", []string{"LISTEN_PID", me}, "LISTEN_FDS", 0},
		{"too many", "LISTEN_FDS", "60000", []string{"LISTEN_PID", me}, "LISTEN_FDS", 0},
		{"descriptors of another", "LISTEN_FDS", "3", []string{"LISTEN_PID", "1"}, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(tc.variable, tc.value)
			for i := 0; i < len(tc.more); i += 2 {
				t.Setenv(tc.more[i], tc.more[i+1])
			}
			s, stored, err := FromEnvironment()
			if (err != nil) != (tc.says != "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %q", err, tc.says)
			}
			if err == nil && (s.Watchdog() != tc.watchdog || len(stored) != 0) {
				t.Errorf("watchdog %v, want %v; stored %v", s.Watchdog(), tc.watchdog, stored)
			}
		})
	}
}

func TestStoredFDs(t *testing.T) {
	t.Parallel()
	me := strconv.Itoa(os.Getpid())
	got, err := storedFDs(me, "0", "")
	if d := cmp.Diff(map[string]int{}, got); err != nil || d != "" {
		t.Errorf("%v %s", err, d)
	}
}
