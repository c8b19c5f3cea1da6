package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed init.sh
var initScript []byte

// buildImage makes the guest's file system and packs it, and returns the archive.
func buildImage(root, cache string, k kernel) (string, error) {
	tree := filepath.Join(cache, "image")
	if err := os.RemoveAll(tree); err != nil {
		return "", err
	}
	for _, dir := range []string{"bin", "sbin", "dev", "proc", "sys", "tmp", "run", "tests", "etc"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return "", err
		}
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(tree, "init"), initScript, 0o755),
		k.copyModules(tree),
		installBusybox(tree),
		copyProgram("nft", tree),
		copyProgram("ip", tree),
		copyProgram("conntrack", tree),
		copyProgram("iptables", tree),
		copyProgram("ip6tables", tree),
		copyProgram("iptables-restore", tree),
		copyProgram("ip6tables-restore", tree),
		copyExtensions(tree),
		// nft prints protocols by name where it finds them here.
		copyFile("/etc/protocols", filepath.Join(tree, "etc/protocols"), 0o644),
		build(root, filepath.Join(tree, "bin/postern"), "build", "-trimpath", "./cmd/postern"),
		os.CopyFS(filepath.Join(tree, "src/docs"), os.DirFS(filepath.Join(root, "docs"))),
	); err != nil {
		return "", err
	}
	var list strings.Builder
	for _, s := range suites {
		binary := filepath.Join(tree, "tests", strings.ReplaceAll(s.dir, "/", "-"))
		if err := build(root, binary, "test", "-c", "./"+s.dir); err != nil {
			return "", err
		}
		// Tests run in the directory of their package and read what lies there.
		if err := copyTestdata(filepath.Join(root, s.dir), filepath.Join(tree, "src", s.dir)); err != nil {
			return "", err
		}
		fmt.Fprintf(&list, "%s %s\n", s.dir, s.run)
	}
	if err := os.WriteFile(filepath.Join(tree, "tests/list"), []byte(list.String()), 0o644); err != nil {
		return "", err
	}
	archive := filepath.Join(cache, "initramfs")
	pack := exec.Command("sh", "-c", `find . | cpio --quiet -o -H newc >"$0"`, archive)
	pack.Dir = tree
	if out, err := pack.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pack: %w: %s", err, out)
	}
	return archive, nil
}

// build runs go build or go test -c for the guest, which has no C library.
func build(root, out string, args ...string) error {
	cmd := exec.Command("go", append([]string{args[0], "-o", out}, args[1:]...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return nil
}

func copyTestdata(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	err := os.CopyFS(filepath.Join(to, "testdata"), os.DirFS(filepath.Join(from, "testdata")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// applets are what init.sh and the kernel call.
var applets = []string{"sh", "mount", "mkdir", "uname", "tr", "echo", "poweroff", "modprobe", "cat", "dmesg", "sysctl", "date"}

func installBusybox(tree string) error {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	if err := copyFile(program, filepath.Join(tree, "bin/busybox"), 0o755); err != nil {
		return err
	}
	for _, a := range applets {
		dir := "bin"
		if a == "modprobe" {
			dir = "sbin" // /proc/sys/kernel/modprobe
		}
		if err := os.Symlink("/bin/busybox", filepath.Join(tree, dir, a)); err != nil {
			return err
		}
	}
	return nil
}

var libraryText = regexp.MustCompile(`(?m)(?:=> )?(/\S+) \(0x`)

// copyExtensions copies what iptables loads by itself.
func copyExtensions(tree string) error {
	dirs, err := filepath.Glob("/usr/lib/*/xtables")
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("extensions of iptables: %v, %v (test/deps.sh vm installs what is missing)", dirs, err)
	}
	extensions, err := filepath.Glob(filepath.Join(dirs[0], "*.so"))
	if err != nil {
		return err
	}
	return errors.Join(os.CopyFS(filepath.Join(tree, dirs[0]), os.DirFS(dirs[0])), copyLibraries(tree, extensions...))
}

// copyProgram copies a program of this machine with the libraries it is linked to.
func copyProgram(name, tree string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	return errors.Join(copyFile(program, filepath.Join(tree, "bin", name), 0o755), copyLibraries(tree, program))
}

// copyLibraries copies what files are linked to.
func copyLibraries(tree string, files ...string) error {
	text, err := output("ldd", files...)
	if err != nil {
		return err
	}
	for _, m := range libraryText.FindAllStringSubmatch(text, -1) {
		if err := copyFile(m[1], filepath.Join(tree, m[1]), 0o755); err != nil {
			return err
		}
	}
	return nil
}
