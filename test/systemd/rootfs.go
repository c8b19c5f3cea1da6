package systemd

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// suite is the Debian with systemd 252.
const suite = "bookworm"

// included is what the machine has beyond a minimal Debian: systemd, programs that the
// operator's guide uses, and those that look at packages.
const included = "systemd,systemd-sysv,nftables,conntrack,iproute2,procps,mandoc,rpm"

// rootfs gives a directory with the machine's files, which nobody may change.
func rootfs() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	h := fnv.New32a()
	fmt.Fprint(h, suite, included)
	dir := filepath.Join(cache, "postern", fmt.Sprintf("debian-%s-%x", suite, h.Sum32()))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	mirror, err := mirror()
	if err != nil {
		return "", err
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := command("debootstrap", "--variant=minbase", "--include="+included, suite, part, mirror); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(part, "var/cache/apt/archives/*.deb"))
	for _, f := range debs {
		os.Remove(f)
	}
	if err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

// mirror is where this machine's apt has the suite from.
func mirror() (string, error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == suite && f[2] == "main" {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("apt has no source of %s: add one to its sources, and run apt-get update", suite)
}

// command runs a program to its end, and shows what it said if it fails.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s (test/deps.sh systemd installs what is missing)", name, strings.Join(args, " "), err, out)
	}
	return nil
}
