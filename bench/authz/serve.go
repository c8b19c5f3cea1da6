package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/postern-project/postern/filter/authz"
)

// serve answers as the daemon does, in a process of its own, until its input ends, and
// tells its processor time for every line of it.
func serve(path string) error {
	w, err := clusterWorld(clusterRules)
	if err != nil {
		return err
	}
	w.snapshot, w.questions, w.messages, w.encoded = nil, nil, nil, nil
	l, err := authz.ListenUnix(path, -1)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.server.Serve(ctx, l) }()
	in := bufio.NewScanner(os.Stdin)
	for fmt.Println("ready"); in.Scan(); {
		fmt.Println(cpu().Nanoseconds())
	}
	stop()
	return <-done
}

// cpu is the processor time that this process used, in the kernel too.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// child is a serving process.
type child struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	dir  string
	path string
}

func startChild() (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{}
	if c.dir, err = os.MkdirTemp("", "authz"); err != nil {
		return nil, err
	}
	c.path = filepath.Join(c.dir, "authz.sock")
	c.cmd = exec.Command(self, "-serve", c.path)
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if c.out = bufio.NewScanner(out); !c.out.Scan() {
		return nil, fmt.Errorf("the server did not start: %w", c.stop())
	}
	return c, nil
}

// cpu is the processor time that it used.
func (c *child) cpu() (time.Duration, error) {
	var n int64
	if _, err := fmt.Fprintln(c.in); err != nil {
		return 0, err
	}
	if !c.out.Scan() {
		return 0, fmt.Errorf("the server is gone: %v", c.out.Err())
	}
	_, err := fmt.Sscan(c.out.Text(), &n)
	return time.Duration(n), err
}

func (c *child) stop() error {
	c.in.Close()
	err := c.cmd.Wait()
	os.RemoveAll(c.dir)
	return err
}
