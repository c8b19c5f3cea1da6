package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Line is one line of a daemon's JSON log.
type Line map[string]any

// Text gives a field as text, empty if it is not there.
func (l Line) Text(field string) string {
	if v, ok := l[field]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// Daemon is a postern process on the node.
type Daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the process; valid once exited is closed
	told   bool  // Stop has returned err

	mu    sync.Mutex
	lines []Line
	more  chan struct{} // closed and renewed with each line
}

// StartDaemon starts the program in the host's namespace with these arguments, and
// reads the JSON log it writes to its standard error.
func (h *Host) StartDaemon(program string, args ...string) (*Daemon, error) {
	d := &Daemon{cmd: exec.Command(program, args...), exited: make(chan struct{}), more: make(chan struct{})}
	// A Ctrl-C at the terminal is for the lab's owner, who stops the daemon.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := h.Start(d.cmd); err != nil {
		return nil, fmt.Errorf("lab: start %s: %w", program, err)
	}
	go func() {
		sc := bufio.NewScanner(stderr)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			d.add(sc.Bytes())
		}
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	return d, nil
}

func (d *Daemon) add(text []byte) {
	var l Line
	if json.Unmarshal(text, &l) != nil {
		l = Line{"message": string(text)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, l)
	close(d.more)
	d.more = make(chan struct{})
}

// Log gives what the daemon has written from line number from on.
func (d *Daemon) Log(from int) []Line {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Line(nil), d.lines[min(from, len(d.lines)):]...)
}

// Wait waits until a line from number from on satisfies f, and returns it with the
// number of the line after it.
func (d *Daemon) Wait(from int, timeout time.Duration, f func(Line) bool) (Line, int, error) {
	deadline := time.After(timeout)
	for {
		d.mu.Lock()
		for ; from < len(d.lines); from++ {
			if l := d.lines[from]; f(l) {
				d.mu.Unlock()
				return l, from + 1, nil
			}
		}
		more := d.more
		d.mu.Unlock()
		select {
		case <-more:
		case <-d.exited:
			return nil, from, fmt.Errorf("the daemon ended: %v; its log:\n%s", d.err, d.Text())
		case <-deadline:
			return nil, from, fmt.Errorf("not logged within %v; the log:\n%s", timeout, d.Text())
		}
	}
}

// Message accepts lines with this message.
func Message(text string) func(Line) bool {
	return func(l Line) bool { return l.Text("message") == text }
}

// PID is the process's number.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// WaitEnforcing waits until the daemon says that a state is in force, from line
// number from on.
func (d *Daemon) WaitEnforcing(from int) (next int, err error) {
	_, next, err = d.Wait(from, 20*time.Second, Message("enforcing"))
	return next, err
}

// Text is the whole log, for a failed test's message.
func (d *Daemon) Text() string {
	var b strings.Builder
	for _, l := range d.Log(0) {
		text, _ := json.Marshal(l)
		b.Write(append(text, '\n'))
	}
	return b.String()
}

// Stop ends the daemon with a signal and waits for it. It returns the exit error
// unless the signal itself is the reason, and returns it once: of a daemon that was
// stopped before there is nothing to say.
func (d *Daemon) Stop(sig syscall.Signal) error {
	if d.told {
		return nil
	}
	d.told = true
	select {
	case <-d.exited:
		return d.err
	default:
	}
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.exited:
	case <-time.After(20 * time.Second):
		d.cmd.Process.Kill()
		<-d.exited
		return fmt.Errorf("the daemon did not end within 20 s of %v; its log:\n%s", sig, d.Text())
	}
	var exit *exec.ExitError
	if errors.As(d.err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == sig {
			return nil
		}
	}
	return d.err
}
