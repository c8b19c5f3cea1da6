package keeper

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/postern-project/postern/internal/notify"
)

// The test program is what the keeper keeps, too: with ExecArgument it becomes the
// command that follows, and with "kept" it does what its second argument says.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 2 && os.Args[1] == ExecArgument:
		fmt.Fprintln(os.Stderr, Exec(os.Args[2:]))
		os.Exit(99)
	case len(os.Args) > 3 && os.Args[1] == "kept":
		os.Exit(kept(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// kept notes in a file what it was given and ends as it is told to.
func kept(how, diary string) int {
	s, stored, err := notify.FromEnvironment()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	f, err := os.OpenFile(diary, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 98
	}
	text, err := os.ReadFile(diary)
	if err != nil {
		return 98
	}
	lives := strings.Count(string(text), "life")
	fmt.Fprintf(f, "life, stored %d, watchdog %v\n", len(stored), s.Watchdog())
	if lives == 0 && how != "refuses" {
		if err := s.Store("diary", int(f.Fd())); err != nil {
			return 98
		}
	} else if fd, ok := stored["diary"]; ok {
		fmt.Fprintf(os.NewFile(uintptr(fd), "diary"), "written by what was stored\n")
	}
	switch {
	case how == "refuses":
		return 2
	case how == "crashes" && lives < 3:
		_ = s.Ready()
		return 2
	case how == "never ready" && lives < 2:
		time.Sleep(300 * time.Millisecond)
		return 1
	case how == "silent" && lives < 1:
		_ = s.Ready()
		time.Sleep(time.Hour)
	}
	_ = s.Ready()
	fmt.Fprintln(f, "last")
	for {
		_ = s.Alive()
		time.Sleep(20 * time.Millisecond)
	}
}

// keep runs a keeper until the diary holds until, or it ends by itself.
func keep(t *testing.T, how, until string, change func(*Config)) (code int, diary, log string) {
	t.Helper()
	path := t.TempDir() + "/diary"
	cfg := Config{Command: []string{os.Args[0], "kept", how, path}, Watchdog: 500 * time.Millisecond, Grace: 5 * time.Second, Stop: 5 * time.Second, Refused: []int{2}}
	if change != nil {
		change(&cfg)
	}
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if text, _ := os.ReadFile(path); until != "" && strings.Contains(string(text), until) {
				time.Sleep(100 * time.Millisecond) // so that it is seen to be alive
				stop()
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	var out bytes.Buffer
	code, err := Run(ctx, cfg, make(chan os.Signal), zerolog.New(&out))
	if err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == context.DeadlineExceeded {
		t.Fatalf("took too long:\n%s", out.String())
	}
	stop()
	wg.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return code, string(text), out.String()
}

// TestCrash: a process that was ready is replaced, whatever its exit code, and the
// next one has what was stored.
func TestCrash(t *testing.T) {
	t.Parallel()
	code, diary, log := keep(t, "crashes", "last", nil)
	if want := 128 + int(syscall.SIGTERM); code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	life := "life, stored 1, watchdog 500ms\nwritten by what was stored\n"
	if want := "life, stored 0, watchdog 500ms\n" + life + life + life + "last\n"; diary != want {
		t.Errorf("got\n%swant\n%s%s", diary, want, log)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	code, diary, log := keep(t, "refuses", "", nil)
	if code != 2 || diary != "life, stored 0, watchdog 500ms\n" {
		t.Errorf("exit code %d\n%s%s", code, diary, log)
	}
}

// TestWatchdog: a process that says nothing any more is replaced.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	_, diary, log := keep(t, "silent", "last", nil)
	if strings.Count(diary, "life") != 2 || !strings.Contains(log, "stuck") {
		t.Errorf("got\n%s%s", diary, log)
	}
}

// TestGrace: what is stored is closed when no process is ready in time.
func TestGrace(t *testing.T) {
	t.Parallel()
	_, diary, log := keep(t, "never ready", "last", func(c *Config) { c.Grace = 100 * time.Millisecond })
	if want := "life, stored 0, watchdog 500ms\n"; !strings.HasPrefix(diary, want) || !strings.HasSuffix(diary, want+"last\n") {
		t.Errorf("got\n%s%s", diary, log)
	}
	if !strings.Contains(log, "no process was ready in time") {
		t.Errorf("not logged:\n%s", log)
	}
}

func TestNoProgram(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Config{Command: []string{"/nowhere"}, Watchdog: time.Second, Grace: time.Second, Stop: time.Second, Refused: []int{99}}, nil, zerolog.Nop())
	if err != nil {
		t.Error(err) // the process that was to become it ends with an exit code
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"queue-1": true, "": false, "a:b": false, "a b": false, "a\n": false, strings.Repeat("a", 256): false} {
		if validName(name) != want {
			t.Errorf("%q: valid %v", name, !want)
		}
	}
}
