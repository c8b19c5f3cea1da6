package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Config says what to keep, and how.
type Config struct {
	// Command is a program and its arguments. It is looked up at every start, so that
	// a program that was replaced is what runs next.
	Command []string
	// Watchdog is how long a process that was ready may be silent.
	Watchdog time.Duration
	// Grace is how long descriptors are kept while no process is ready.
	Grace time.Duration
	// Stop is how long a process may take to end when it was told to.
	Stop time.Duration
	// Refused are exit codes by which the first process says that its command line
	// makes no sense; the keeper ends with it then. A process that was ready is
	// replaced whatever its exit code: Go's own for a panic is 2, and somebody may have
	// ended it, with 0, to put another program in its place.
	Refused []int
}

// Pauses before a process that failed is started again: at once at first, and then
// longer each time, until one is ready for as long as the longest pause.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// Run keeps a process until ctx ends, and then tells it to end; or until it
// refuses to start. It returns the last exit code. Signals that come
// are passed on.
func Run(ctx context.Context, cfg Config, signals <-chan os.Signal, log zerolog.Logger) (code int, err error) {
	// The kernel sends Pdeathsig when the thread ends that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	box, err := openMailbox()
	if err != nil {
		return 0, err
	}
	defer box.close()
	k := &keeper{cfg: cfg, box: box, log: log}
	defer k.drop("the keeper ends")
	pause := time.Duration(0)
	for first := true; ; first = false {
		began := time.Now()
		code, ready, err := k.once(ctx, signals)
		switch {
		case err != nil && first:
			return 0, err
		case ctx.Err() != nil:
			return code, nil
		case first && !ready && slices.Contains(cfg.Refused, code):
			log.Error().Int("exit_code", code).Msg("the process refuses to start")
			return code, nil
		}
		if ready && time.Since(began) > longestPause {
			pause = 0
		}
		log.Error().Err(err).Int("exit_code", code).Dur("pause", pause).Int("descriptors", len(k.stored)).
			Msg("the process ended unasked; another is started")
		if !k.sleep(ctx, pause) {
			return code, nil
		}
		pause = min(max(2*pause, firstPause), longestPause)
	}
}

type keeper struct {
	cfg    Config
	box    *mailbox
	log    zerolog.Logger
	stored []storedFD
	expiry <-chan time.Time // of what is stored, while no process is ready
}

type storedFD struct {
	name string
	file *os.File
}

// once runs one process to its end.
func (k *keeper) once(ctx context.Context, signals <-chan os.Signal) (code int, ready bool, err error) {
	cmd := k.command()
	if err := cmd.Start(); err != nil {
		return 0, false, fmt.Errorf("start %s: %w", k.cfg.Command[0], err)
	}
	pid := cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := ctx.Done()
	var silence, kill <-chan time.Time
	for {
		select {
		case err := <-ended:
			k.collect(pid, &ready) // what it said last
			if k.expiry == nil {
				k.expiry = time.After(k.cfg.Grace)
			}
			return exitCode(cmd, err), ready, nil
		case m := <-k.box.messages:
			if m.pid == pid {
				ready = k.note(m) || ready
			} else {
				m.close()
			}
			if ready {
				silence, k.expiry = time.After(k.cfg.Watchdog), nil
			}
		case <-silence:
			k.log.Error().Int("pid", pid).Dur("silent", k.cfg.Watchdog).Msg("the process is stuck and is ended")
			_ = cmd.Process.Signal(syscall.SIGABRT) // so that it shows where it was
			silence, kill = nil, time.After(time.Second)
		case <-k.expiry:
			k.drop("no process was ready in time")
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case <-stop:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			stop, kill = nil, time.After(k.cfg.Stop)
		case <-kill:
			_ = cmd.Process.Kill()
			kill = nil
		}
	}
}

// command makes the process. It becomes the program by way of Exec, which knows the
// process id that LISTEN_PID must name.
func (k *keeper) command() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{ExecArgument}, k.cfg.Command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// The end of the keeper is the end of what it keeps: there would be nobody to
	// end it later.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Env = append(os.Environ(),
		"NOTIFY_SOCKET="+k.box.name,
		fmt.Sprintf("WATCHDOG_USEC=%d", k.cfg.Watchdog.Microseconds()))
	if len(k.stored) > 0 {
		var names []string
		for _, s := range k.stored {
			names = append(names, s.name)
			cmd.ExtraFiles = append(cmd.ExtraFiles, s.file)
		}
		cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return cmd
}

// note does what a message asks for, and tells whether it says READY.
func (k *keeper) note(m message) (ready bool) {
	fields := map[string]string{}
	for line := range strings.SplitSeq(m.text, "\n") {
		if name, value, ok := strings.Cut(line, "="); ok {
			fields[name] = value
		}
	}
	name := fields["FDNAME"]
	switch {
	case fields["FDSTORE"] == "1" && len(m.files) == 1 && validName(name):
		k.forget(name)
		k.stored = append(k.stored, storedFD{name, m.files[0]})
	case fields["FDSTOREREMOVE"] == "1":
		k.forget(name)
		m.close()
	default:
		m.close()
	}
	return fields["READY"] == "1"
}

func validName(name string) bool {
	return name != "" && len(name) < 256 && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' })
}

// collect takes what a process that has ended had said before.
func (k *keeper) collect(pid int, ready *bool) {
	for {
		select {
		case m := <-k.box.messages:
			if m.pid == pid {
				*ready = k.note(m) || *ready
			} else {
				m.close()
			}
		case <-time.After(10 * time.Millisecond):
			return
		}
	}
}

func (k *keeper) forget(name string) {
	k.stored = slices.DeleteFunc(k.stored, func(s storedFD) bool {
		if s.name == name {
			s.file.Close()
		}
		return s.name == name
	})
}

// drop closes all that is stored.
func (k *keeper) drop(why string) {
	if len(k.stored) > 0 {
		k.log.Warn().Str("reason", why).Int("descriptors", len(k.stored)).Msg("descriptors closed: what waited for an answer is dropped")
	}
	for _, s := range k.stored {
		s.file.Close()
	}
	k.stored, k.expiry = nil, nil
}

// sleep waits, and closes what has been stored for too long.
func (k *keeper) sleep(ctx context.Context, d time.Duration) bool {
	for end := time.After(d); ; {
		select {
		case <-ctx.Done():
			return false
		case <-end:
			return true
		case <-k.expiry:
			k.drop("no process was ready in time")
		}
	}
}

// exitCode is that of a shell: 128 and the signal's number for a signal.
func exitCode(cmd *exec.Cmd, err error) int {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1
	}
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return cmd.ProcessState.ExitCode()
}
