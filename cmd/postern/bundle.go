package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/observe"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/internal/bundle"
	"github.com/postern-project/postern/internal/settings"
)

// bundleConfig is what the flags of bundle say, besides those of run.
type bundleConfig struct {
	run          runConfig
	file, output string
	snapshot     bool
	unit         string
}

func newBundleCommand() *cobra.Command {
	var c bundleConfig
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Collect what support needs to know of this host, without secrets",
		Long: `Collect what support needs to know of this host in one archive: version, settings,
what "postern status" and "postern doctor" say, the table in the kernel, conntrack's
statistics, how large the state is, the last decisions, and the end of the log from
the journal. What cannot be had is named in notes.txt, and the rest is written.

No secret is collected: of kubeconfig and key files only the paths. Besides, whatever
looks like a token, a password, a key or a certificate is replaced in all texts. There
are names of pods, accounts and policies and addresses in the archive, and no labels,
unless --snapshot puts in the whole state, with labels and selectors.

It takes the settings of "postern run", from the same file and environment.`,
		Example: `  postern bundle
  postern bundle --snapshot --file - > support.tar.gz`,
	}
	f := cmd.Flags()
	addRunFlags(f, &c.run)
	f.StringVar(&c.file, "file", "", "file to write, which must not exist, or - for standard output; by default postern-bundle-HOST-TIME.tar.gz")
	f.StringVarP(&c.output, "output", "o", "text", "how to tell what was written: text or json")
	f.BoolVar(&c.snapshot, "snapshot", false, "put in the state that the daemon decides on, with all labels")
	f.StringVar(&c.unit, "unit", "postern", "unit of systemd whose log to put in; empty for none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c.output != "text" && c.output != "json" {
			return usageError("--output %q: want text or json", c.output)
		}
		s := settings.New(f, "file", "output", "snapshot", "unit")
		if err := s.Load(os.Environ()); err != nil {
			return exitError{exitUsage, err}
		}
		return c.write(cmd.Context(), s, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

func (c *bundleConfig) write(ctx context.Context, s *settings.Set, stdout, stderr io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	now := time.Now().UTC().Truncate(time.Second)
	name := "postern-bundle-" + host + "-" + now.Format("20060102T150405Z")
	if c.file == "" {
		c.file = name + ".tar.gz"
	}
	w, told := stdout, stderr
	if c.file != "-" {
		f, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return usageError("--file: %w", err)
		}
		defer f.Close()
		w, told = f, stdout
	}
	a := bundle.Archive{Values: !c.snapshot}
	c.collect(ctx, &a, s)
	if err := a.Write(w, name, now); err != nil {
		return err
	}
	if f, ok := w.(*os.File); ok && c.file != "-" {
		if err := f.Close(); err != nil {
			return fmt.Errorf("--file: %w", err)
		}
	}
	if c.output == "json" {
		return writeJSON(told, struct {
			File  string   `json:"file"`
			Files []string `json:"files"`
			Notes []string `json:"notes"`
		}{c.file, a.Names(), append([]string{}, a.Notes()...)})
	}
	fmt.Fprintf(told, "wrote %s: %s\n", oneLine(c.file), strings.Join(a.Names(), ", "))
	for _, n := range a.Notes() {
		fmt.Fprintf(told, "not there: %s\n", oneLine(string(bundle.Redact([]byte(n)))))
	}
	return nil
}

// bundleTimeout bounds each thing that is asked for.
const bundleTimeout = 30 * time.Second

func (c *bundleConfig) collect(ctx context.Context, a *bundle.Archive, s *settings.Set) {
	a.Text("version.txt", []byte(versionText()))
	a.JSON("settings.json", s.List())
	a.JSON("doctor.json", examine(ctx, &c.run))
	c.collectKernel(ctx, a)
	if c.run.socket == "" {
		a.Note("status.json", errors.New("there is no socket to ask on"))
	} else {
		c.collectDaemon(ctx, a)
	}
	if c.unit != "" {
		c.program(ctx, a, "log.txt", "journalctl", "--unit", c.unit, "--lines", "5000", "--output", "cat", "--no-pager", "--quiet")
	}
}

func (c *bundleConfig) collectDaemon(ctx context.Context, a *bundle.Archive) {
	ctx, cancel := context.WithTimeout(ctx, bundleTimeout)
	defer cancel()
	client := control.NewClient(c.run.socket)
	if st, err := client.Status(ctx); err != nil {
		a.Note("status.json", err)
	} else {
		a.JSON("status.json", st)
	}
	var decisions bytes.Buffer
	enc := newJSON(&decisions)
	err := client.Observe(ctx, observe.Filter{}, 2*observe.Kept, false, func(l observe.Line) error {
		l.Annotations = "" // people's own
		return enc.Encode(l)
	})
	if err != nil {
		a.Note("decisions.jsonl", err)
	} else {
		a.Text("decisions.jsonl", decisions.Bytes())
	}
	snapshot, node, err := client.Snapshot(ctx)
	if err != nil {
		a.Note("state.json", err)
		return
	}
	a.JSON("state.json", sizesOf(snapshot, node))
	if c.snapshot {
		var b bytes.Buffer
		if err := policy.WriteJSON(&b, snapshot); err != nil {
			a.Note("snapshot.json", err)
			return
		}
		a.Whole("snapshot.json", b.Bytes())
	}
}

// sizes count what a snapshot holds.
type sizes struct {
	Node       string         `json:"node,omitempty"`
	Generation uint64         `json:"generation"`
	Objects    map[string]int `json:"objects"`
	Rules      int            `json:"rules"`
	Prefixes   int            `json:"prefixes"` // of network sets
}

func sizesOf(s *policy.Snapshot, node string) sizes {
	n := sizes{Node: node, Generation: s.Generation, Objects: map[string]int{
		"tiers": len(s.Tiers), "policies": len(s.Policies), "profiles": len(s.Profiles), "namespaces": len(s.Namespaces),
		"serviceAccounts": len(s.ServiceAccounts), "pods": len(s.Endpoints), "hostEndpoints": len(s.HostEndpoints),
		"networkSets": len(s.NetworkSets), "endpointSlices": len(s.EndpointSlices),
	}}
	for _, p := range s.Policies {
		n.Rules += len(p.Ingress) + len(p.Egress)
	}
	for _, set := range s.NetworkSets {
		n.Prefixes += len(set.Nets)
	}
	return n
}

func (c *bundleConfig) collectKernel(ctx context.Context, a *bundle.Archive) {
	for name, path := range map[string]string{
		"conntrack.txt": "/proc/thread-self/net/stat/nf_conntrack", "queues.txt": "/proc/thread-self/net/netfilter/nfnetlink_queue",
	} {
		if b, err := os.ReadFile(path); err != nil {
			a.Note(name, err)
		} else {
			a.Text(name, b)
		}
	}
	values := map[string]string{}
	for _, pattern := range []string{"net/netfilter/nf_conntrack_*", "net/ipv4/ip_forward", "net/ipv4/conf/all/rp_filter", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/disable_ipv6", "net/core/rmem_max", "net/bridge/bridge-nf-*"} {
		paths, _ := filepath.Glob("/proc/sys/" + pattern)
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil {
				values[strings.TrimPrefix(p, "/proc/sys/")] = strings.TrimSpace(string(b))
			}
		}
	}
	a.JSON("sysctls.json", values)
	c.program(ctx, a, "table.txt", "nft", "list", "table", "inet", nft.TableName)
}

// program adds what a program of the host prints.
func (c *bundleConfig) program(ctx context.Context, a *bundle.Archive, file, name string, args ...string) {
	ctx, cancel := context.WithTimeout(ctx, bundleTimeout)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		a.Note(file, fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String())))
		return
	}
	a.Text(file, out.Bytes())
}
