package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hostname is the machine's, and so that of the cluster's node.
const hostname = "n1"

// Machine is a Debian with systemd as its first process, in a network namespace that
// somebody else has made. Its files outlast Halt and the next Boot.
type Machine struct {
	dir, netns, packages string
	cmd                  *exec.Cmd
	ended                chan struct{}
	console              bytes.Buffer // read only once ended is closed
	leader               int          // systemd, as this machine numbers it
}

// New lays out a machine below dir, which has to be empty. netns is the path of its
// network namespace, and packages a directory that it sees as /packages.
func New(dir, netns, packages string) (*Machine, error) {
	base, err := rootfs()
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, netns: netns, packages: packages}
	for _, sub := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, m.upper(), filepath.Join(dir, "work"))
	if err := syscall.Mount("overlay", m.root(), "overlay", 0, layers); err != nil {
		return nil, fmt.Errorf("mount overlay: %w", err)
	}
	return m, os.WriteFile(filepath.Join(m.root(), "etc/hostname"), []byte(hostname+"\n"), 0o644)
}

func (m *Machine) upper() string { return filepath.Join(m.dir, "upper") }
func (m *Machine) root() string  { return filepath.Join(m.dir, "root") }

// Boot starts the machine and returns when everything in it has started.
func (m *Machine) Boot() error {
	m.cmd = exec.Command("systemd-nspawn", "--quiet", "--directory="+m.root(), "--boot",
		"--register=no", "--keep-unit", "--network-namespace-path="+m.netns, "--capability=CAP_NET_ADMIN", "--bind-ro="+m.packages+":/packages",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe")
	m.console.Reset()
	m.cmd.Stdout, m.cmd.Stderr = &m.console, &m.console
	// The end of the test is the end of the machine. The kernel watches the thread.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	m.ended = make(chan struct{})
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.cmd.Start()
		started <- err
		if err == nil {
			_ = m.cmd.Wait() // a machine that was halted, or one that Boot misses
		}
		close(m.ended)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("systemd-nspawn: %w (test/deps.sh systemd installs it)", err)
	}
	err := m.await(time.Minute, func() (bool, error) {
		if m.leader = leader(m.cmd.Process.Pid); m.leader == 0 {
			return false, nil
		}
		state, _ := m.Exec("systemctl", "is-system-running")
		switch strings.TrimSpace(state) {
		case "running":
			return true, nil
		case "degraded":
			failed, _ := m.Exec("systemctl", "--failed", "--no-legend", "--plain")
			return false, errors.New("units failed: " + failed)
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("boot: %w", errors.Join(err, m.Halt()))
	}
	return nil
}

// await asks done until it says yes.
func (m *Machine) await(limit time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		select {
		case <-m.ended:
			return fmt.Errorf("the machine ended: %s", m.console.String())
		default:
		}
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v", limit)
		}
	}
}

// leader finds the machine's first process below systemd-nspawn; 0 if there is none yet.
func leader(nspawn int) int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", nspawn))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for pid := range strings.FieldsSeq(string(text)) {
			status, _ := os.ReadFile("/proc/" + pid + "/status")
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			if bytes.Contains(status, []byte("NSpid:\t"+pid+"\t1\n")) && string(name) == "systemd\n" {
				n, _ := strconv.Atoi(pid)
				return n
			}
		}
	}
	return 0
}

// Exec runs a command in the machine, as root, and gives what it writes.
func (m *Machine) Exec(args ...string) (string, error) {
	in := []string{"-t", strconv.Itoa(m.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := exec.Command("nsenter", append(in, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// Write writes a file of the machine. It must be running.
func (m *Machine) Write(path, text string) error {
	at := filepath.Join("/proc", strconv.Itoa(m.leader), "root", path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.WriteFile(at, []byte(text), 0o644)
}

// Halt shuts the machine down.
func (m *Machine) Halt() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} { // orderly, and at once
		_ = m.cmd.Process.Signal(sig)
		select {
		case <-m.ended:
			m.leader = 0
			return nil
		case <-time.After(30 * time.Second):
		}
	}
	return fmt.Errorf("the machine does not end: %d", m.cmd.Process.Pid)
}

// Close removes the machine, which must not be running.
func (m *Machine) Close() error { return syscall.Unmount(m.root(), 0) }
