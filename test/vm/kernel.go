package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// kernelPackage depends on the newest kernel package of the distribution. The cloud
// flavour has all of netfilter and few drivers.
const kernelPackage = "linux-image-cloud-amd64"

// kernel is an unpacked kernel package.
type kernel struct {
	release string // as uname -r says
	image   string // vmlinuz
	modules string // directory of modules.dep
}

var dependsText = regexp.MustCompile(`Depends: (linux-image-[0-9]\S*)`)

// fetchKernel downloads the kernel package and unpacks it, unless the cache has it.
func fetchKernel(cache string) (k kernel, err error) {
	text, err := output("apt-cache", "depends", kernelPackage)
	if err != nil {
		return k, err
	}
	m := dependsText.FindStringSubmatch(text)
	if m == nil {
		return k, fmt.Errorf("apt knows no %s; run apt-get update: %s", kernelPackage, text)
	}
	name := m[1]
	k.release = strings.TrimPrefix(strings.TrimPrefix(name, "linux-image-"), "unsigned-")
	tree := filepath.Join(cache, name)
	k.image, k.modules = filepath.Join(tree, "boot/vmlinuz-"+k.release), filepath.Join(tree, "lib/modules", k.release)
	if _, err := os.Stat(filepath.Join(k.modules, "modules.dep")); err == nil {
		return k, nil
	}
	if err := unpack(name, cache, tree); err != nil {
		return k, err
	}
	// The package leaves the list of dependencies to its installation.
	return k, runIn("", "busybox", "depmod", "-b", tree, k.release)
}

func unpack(name, cache, tree string) error {
	dir := filepath.Join(cache, "download")
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(tree), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	if err := runIn(dir, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("apt-get download left %v, %v", debs, err)
	}
	return errors.Join(runIn("", "dpkg-deb", "-x", debs[0], tree), os.RemoveAll(dir))
}

// wanted are the modules that tests, and postern itself, cause the kernel to load:
// whole directories, since most are loaded by what rules ask for.
var wanted = []string{
	"kernel/net/netfilter/", "kernel/net/ipv4/netfilter/", "kernel/net/ipv6/netfilter/",
	"kernel/net/bridge/", "kernel/drivers/net/veth.ko", "kernel/drivers/net/dummy.ko",
}

// copyModules copies the wanted modules, and those they need, below to.
func (k kernel) copyModules(to string) error {
	text, err := os.ReadFile(filepath.Join(k.modules, "modules.dep"))
	if err != nil {
		return err
	}
	needs := map[string][]string{} // by path, as it stands in modules.dep
	for line := range strings.Lines(string(text)) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			needs[name] = strings.Fields(rest)
		}
	}
	var queue []string
	for name := range needs {
		for _, w := range wanted {
			if strings.HasPrefix(name, w) {
				queue = append(queue, name)
			}
		}
	}
	if len(queue) < 50 {
		return fmt.Errorf("%s/modules.dep names %d of the modules wanted", k.modules, len(queue))
	}
	done := map[string]bool{}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		if done[name] {
			continue
		}
		done[name] = true
		queue = append(queue, needs[name]...)
		if err := copyFile(filepath.Join(k.modules, name), filepath.Join(to, "lib/modules", k.release, name), 0o644); err != nil {
			return err
		}
	}
	for _, list := range []string{"modules.builtin", "modules.order"} {
		if err := copyFile(filepath.Join(k.modules, list), filepath.Join(to, "lib/modules", k.release, list), 0o644); err != nil {
			return err
		}
	}
	return runIn("", "busybox", "depmod", "-b", to, k.release)
}

func copyFile(from, to string, mode fs.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, mode)
}

// runIn runs a program in a directory and shows what it says if it fails.
func runIn(dir, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}
