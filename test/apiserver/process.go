package apiserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a program that runs until it is stopped, or this process ends.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the program; valid once exited is closed
}

// start starts a program whose output is added to a log file.
func start(log, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(program, args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// Ctrl-C at the terminal is for the test, which stops the program. The signal at
	// the parent's death comes when the thread that started the program ends: that
	// thread must do nothing else.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

// stop ends the program, if it has not ended yet, and waits for it.
func (p *process) stop(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("%s did not end within %v of %v", p.cmd.Path, patience, sig)
	}
}

// tail is the end of a file.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

// directory is a temporary directory that is locked while its owner lives.
type directory struct {
	path string
	lock *os.File
}

const pattern = "postern-apiserver-*"

// newDirectory makes one, and removes those whose owner has died.
func newDirectory() (d directory, err error) {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), pattern))
	for _, path := range old {
		if lock, err := lockFile(path); err == nil {
			directory{path, lock}.remove()
		}
	}
	if d.path, err = os.MkdirTemp("", pattern); err != nil {
		return d, err
	}
	if err := os.WriteFile(filepath.Join(d.path, "lock"), nil, 0o600); err != nil {
		return d, err
	}
	d.lock, err = lockFile(d.path)
	return d, err
}

// lockFile locks a directory, unless somebody else has or it is being made.
func lockFile(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (d directory) remove() error {
	if d.lock != nil {
		defer d.lock.Close()
	}
	return os.RemoveAll(d.path)
}
