package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/diff"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// diffConfig is what the command line of diff says.
type diffConfig struct {
	sides                         [2]string // before, after
	world, from, to, port, output string
	limit                         int64
}

func newDiffCommand() *cobra.Command {
	var c diffConfig
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say which flows a change of policy allows or denies",
		Long: `Say which flows would be decided otherwise under the manifests in NEW than under
those in OLD: verdicts are compared, not text. A rewrite that decides alike has no
difference, and one label can have many.

The answer is complete. Pods that no rule of either side tells apart are compared
as one, and so are addresses outside; every protocol, port and ICMP type is covered.
What changed is shown with the rule that decided before and the one that decides
now, and is checked by an evaluator that shares no code with the first.

OLD and NEW are directories or files of manifests. Pods, namespaces and service
accounts are those of either side, or of --world for both, where an object of OLD or
NEW takes the place of its namesake. Pods are found on the other side by name, else
by account, labels and ports; those without a counterpart are listed and not
compared. Every pod counts as protected, whatever its node. Nothing on the host is
read or changed.

--from and --to are a pod as namespace/name, an address, namespace:NAME or
sa:NAMESPACE/NAME. --port is tcp, tcp/80, tcp/8000-8999, icmp, icmp:8, icmpv6:1/0 or
a protocol number.

Exit code: 0 no verdict changes, 1 some do, 2 usage, something cannot be read, or the
comparison would go over --limit, 4 the two evaluators differ.`,
		Example: `  postern diff policy-main/ policy-branch/ --world cluster/
  postern diff before/ after/ --to prod/db --port tcp/5432 -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError("diff: want two directories, OLD and NEW, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c.sides = [2]string(args)
			return runDiff(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.world, "world", "", "manifests that belong to both sides, such as pods, namespaces and service accounts")
	f.StringVar(&c.from, "from", "", "only flows from here")
	f.StringVar(&c.to, "to", "", "only flows to here")
	f.StringVar(&c.port, "port", "", "only this traffic")
	f.Int64Var(&c.limit, "limit", diff.DefaultLimit, "decisions to take at most; a comparison that needs more is refused")
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	return cmd
}

func runDiff(ctx context.Context, c diffConfig, stdout, stderr io.Writer) error {
	if c.output != "text" && c.output != "json" {
		return usageError("--output %q: want text or json", c.output)
	}
	if c.limit <= 0 {
		return usageError("--limit %d: want 1 or more", c.limit)
	}
	o := diff.Options{Limit: c.limit, Progress: diffProgress(stderr)}
	var err error
	if o.From, err = parseDiffEnd("from", c.from); err != nil {
		return err
	}
	if o.To, err = parseDiffEnd("to", c.to); err != nil {
		return err
	}
	if o.Port, err = parseDiffPort(c.port); err != nil {
		return err
	}
	noteNumber(stderr, c.port)
	snapshots, err := c.load(stderr)
	if err != nil {
		return exitError{exitUsage, err}
	}
	report, err := diff.Compare(ctx, snapshots[0], snapshots[1], o)
	if err != nil {
		return c.explainError(err)
	}
	if c.output == "json" {
		err = writeJSON(stdout, report)
	} else {
		err = report.Text(stdout)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if len(report.Changes) > 0 {
		return exitError{code: exitNo}
	}
	return nil
}

// explainError tells what to do about an error of Compare.
func (c *diffConfig) explainError(err error) error {
	var (
		limit *diff.LimitError
		end   *diff.EndError
		empty *diff.NoPodsError
	)
	switch {
	case errors.As(err, &limit):
		return usageError("diff: %w: narrow it with --from, --to or --port, or raise --limit", err)
	case errors.As(err, &end):
		text := map[string]string{"from": c.from, "to": c.to}[end.Side]
		return usageError("--%s %s: no pod or address that both sides know", end.Side, text)
	case errors.As(err, &empty):
		return usageError("diff: %w: give the cluster's pods with --world, as kubectl get pods,namespaces,serviceaccounts -A -o yaml prints them", err)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("diff: %w", err)
	}
	return fmt.Errorf("diff: %w: please report this as a bug, with the manifests", err)
}

// load reads both sides.
func (c *diffConfig) load(stderr io.Writer) (out [2]*policy.Snapshot, err error) {
	sides, err := loadOver(c.world, c.sides[:], nil, stderr)
	if err == nil {
		out = [2]*policy.Snapshot(sides)
	}
	return out, err
}

// loadOver reads each path over the world, if there is one: an object of the path
// takes the place of its namesake there. change, if it is not nil, is called with
// all objects of a side, and with its pods that are no endpoints. What is wrong with objects is written to stderr, once if it
// is wrong on several sides.
func loadOver(world string, paths []string, change func([]k8ssync.Object, map[policy.Key]*policy.Endpoint) ([]k8ssync.Object, error), stderr io.Writer) (out []*policy.Snapshot, err error) {
	var shared file.Reading
	if world != "" {
		if shared, err = readManifests(world); err != nil {
			return nil, err
		}
	}
	warned := make(map[string]bool)
	for _, path := range paths {
		own, err := readManifests(path)
		if err != nil {
			return nil, err
		}
		objects := slices.Concat(shared.Objects, own.Objects) // the last of a key counts
		if change != nil {
			unplaced := make(map[policy.Key]*policy.Endpoint)
			maps.Copy(unplaced, shared.Unplaced)
			maps.Copy(unplaced, own.Unplaced)
			if objects, err = change(objects, unplaced); err != nil {
				return nil, err
			}
		}
		store := k8ssync.NewStore()
		store.Replace(objects)
		for _, p := range store.Problems() {
			if text := oneLine(p.Error()); !warned[text] {
				warned[text] = true
				fmt.Fprintln(stderr, "postern: warning:", text)
			}
		}
		out = append(out, store.Snapshot())
	}
	return out, nil
}

func readManifests(path string) (file.Reading, error) {
	r, err := file.Read(path)
	if err != nil {
		return r, err
	}
	var errs []error
	for _, e := range r.Errors {
		errs = append(errs, errors.New(sanitize(e.Error())))
	}
	return r, errors.Join(errs...)
}

// parseDiffEnd reads an end; nil if there is none.
func parseDiffEnd(flag, text string) (*diff.End, error) {
	if text == "" {
		return nil, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return &diff.End{Address: a.Unmap()}, nil
	}
	if name, ok := strings.CutPrefix(text, "namespace:"); ok && name != "" {
		return &diff.End{Namespace: name}, nil
	}
	rest, isAccount := strings.CutPrefix(text, "sa:")
	namespace, name, ok := strings.Cut(strings.TrimPrefix(rest, "pod:"), "/")
	key := policy.Key{Namespace: namespace, Name: name}
	switch {
	case !ok || namespace == "" || name == "":
		return nil, usageError("--%s %q: want a pod as namespace/name, an address, namespace:NAME or sa:NAMESPACE/NAME", flag, text)
	case isAccount:
		return &diff.End{Account: key}, nil
	}
	return &diff.End{Pod: key}, nil
}

// parseDiffPort reads traffic; nil if there is none.
func parseDiffPort(text string) (*diff.Port, error) {
	if text == "" {
		return nil, nil
	}
	wrong := usageError("--port %q: want tcp, tcp/80, tcp/8000-8999, icmp, icmp:8, icmpv6:1/0 or a protocol number", text)
	i := strings.IndexAny(text, "/:")
	name, rest := text, ""
	if i >= 0 {
		name, rest = text[:i], text[i+1:]
	}
	proto, err := flow.ParseProto(name)
	if err != nil {
		return nil, wrong
	}
	p := &diff.Port{Proto: proto, Range: flow.PortRange{Min: 0, Max: 1<<16 - 1}}
	if i < 0 {
		return p, nil
	}
	first, second, two := strings.Cut(rest, map[byte]string{'/': "-", ':': "/"}[text[i]])
	bits := map[bool]int{true: 16, false: 8}[proto.HasPorts()]
	low, err := strconv.ParseUint(first, 10, bits)
	if err != nil {
		return nil, wrong
	}
	high := low
	if two {
		if high, err = strconv.ParseUint(second, 10, bits); err != nil {
			return nil, wrong
		}
	}
	switch isICMP := proto == flow.ICMP || proto == flow.ICMPv6; {
	case proto.HasPorts() && text[i] == '/' && low <= high:
		p.Range = flow.PortRange{Min: uint16(low), Max: uint16(high)}
	case isICMP && text[i] == ':' && two:
		p.Range = flow.PortRange{Min: uint16(low<<8 | high), Max: uint16(low<<8 | high)}
	case isICMP && text[i] == ':':
		p.Range = flow.PortRange{Min: uint16(low << 8), Max: uint16(low<<8 | 0xff)}
	default:
		return nil, wrong
	}
	return p, nil
}

// diffProgress shows on a terminal how far a long comparison is; nil elsewhere.
func diffProgress(stderr io.Writer) func(done, total int64) {
	if !isTerminal(stderr) {
		return nil
	}
	shown, next := false, time.Now().Add(time.Second)
	return func(done, total int64) {
		switch now := time.Now(); {
		case done == total && shown:
			fmt.Fprintf(stderr, "\r%24s\r", "")
		case now.After(next):
			shown, next = true, now.Add(time.Second/4)
			fmt.Fprintf(stderr, "\rcomparing: %3d %%", done*100/total)
		}
	}
}
