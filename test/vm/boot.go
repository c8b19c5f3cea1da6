package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// boot runs the guest to its end, shows its console, and tells what failed in it.
func boot(ctx context.Context, accel, kernel, image string) error {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", accel, "-cpu", "max", "-smp", "2", "-m", "1536",
		"-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("qemu: %w (test/deps.sh vm installs it)", err)
	}
	failed := read(out, os.Stdout, suites)
	return errors.Join(failed, cmd.Wait())
}

// read copies the guest's console to w and tells what is missing for a success:
// every suite must have begun, run at least one test, and ended with exit code 0,
// with no test skipped.
func read(console io.Reader, w io.Writer, suites []suite) error {
	var (
		errs     []error
		current  string
		passed   int
		ended    []string
		finished bool
	)
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		fmt.Fprintln(w, line)
		word := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "vm: begin ") && len(word) == 3:
			current, passed = word[2], 0
		case strings.HasPrefix(line, "--- PASS: "):
			passed++
		case strings.HasPrefix(strings.TrimSpace(line), "--- FAIL: "), strings.HasPrefix(strings.TrimSpace(line), "--- SKIP: "):
			errs = append(errs, fmt.Errorf("%s: %s", current, strings.TrimSpace(line)))
		case strings.HasPrefix(line, "vm: end ") && len(word) == 4:
			ended = append(ended, word[2])
			if word[3] != "0" || passed == 0 {
				errs = append(errs, fmt.Errorf("%s: %d tests passed, exit code %s", word[2], passed, word[3]))
			}
		case line == "vm: done":
			finished = true
		}
	}
	if !finished {
		errs = append(errs, fmt.Errorf("the guest ended before it was done, in %q", current))
	}
	for _, s := range suites {
		if !slices.Contains(ended, s.dir) {
			errs = append(errs, fmt.Errorf("%s did not end", s.dir))
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}
