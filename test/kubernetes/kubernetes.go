package kubernetes

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the import path of the module that this package belongs to.
const root = "github.com/postern-project/postern"

// Program gives the path of a program of Kubernetes, such as kube-apiserver, or of
// etcd as it is made for, and builds it first if this machine has not built it yet, which takes minutes. It may be
// called from many processes at once: one builds, the others wait for it.
func Program(name string) (path string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("kubernetes: %s: %w", name, err)
		}
	}()
	source, of, err := source(name)
	if err != nil {
		return "", err
	}
	dir, err := cache(source)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path, nil // somebody else has built it meanwhile
	}
	// A build that is interrupted must not leave a half-written program behind.
	aside := path + ".new"
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", aside, of)
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, os.Rename(aside, path)
}

// source is the directory of the nested module that pins a program, and the program's
// import path. The test may be running in another module that uses this one.
func source(name string) (dir, of string, err error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", root).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", "", fmt.Errorf("go list: %w: %s", err, exit.Stderr)
		}
		return "", "", fmt.Errorf("go list: %w", err)
	}
	dir = filepath.Join(strings.TrimSpace(string(out)), "test", "kubernetes")
	if name == "etcd" {
		return filepath.Join(dir, "etcd"), "go.etcd.io/etcd/server/v3", nil
	}
	return filepath.Join(dir, "programs"), "k8s.io/kubernetes/cmd/" + name, nil
}

// cache names the directory for what is built of this source by this toolchain.
func cache(source string) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		sum.Write(text)
	}
	version, err := exec.Command("go", "env", "GOVERSION", "GOARCH").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	sum.Write(version)
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(user, "postern", fmt.Sprintf("kubernetes-%x", sum.Sum(nil)[:8])), nil
}

// lock waits until this process alone holds the file.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
