package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// mapping gives addresses to pods.
type mapping []mapped

type mapped struct {
	addr    netip.Addr
	key     policy.Key // a pod, or a service account
	written string     // for messages
}

// readMapping reads --map flags and a file of the same, a line each; a line may have
// blanks in the place of the equals sign, and # begins a comment.
func readMapping(flags []string, path string) (m mapping, err error) {
	seen := map[netip.Addr]policy.Key{}
	add := func(text, where string) error {
		left, right, ok := strings.Cut(text, "=")
		a, err := netip.ParseAddr(strings.TrimSpace(left))
		right, account := strings.CutPrefix(strings.TrimSpace(right), "sa:")
		namespace, name, two := strings.Cut(right, "/")
		if !ok || err != nil || a.Zone() != "" || !two || namespace == "" || name == "" {
			return usageError("%s: %q: want IP=namespace/pod or IP=sa:namespace/account", where, sanitize(text))
		}
		e := mapped{a.Unmap(), policy.Key{Kind: policy.PodKind, Namespace: namespace, Name: name}, where}
		if account {
			e.key.Kind = policy.ServiceAccountKind
		}
		if k, again := seen[e.addr]; again && k != e.key {
			return usageError("%s: %s is mapped twice, to %s and to %s", where, e.addr, k, e.key)
		} else if again {
			return nil
		}
		seen[e.addr] = e.key
		m = append(m, e)
		return nil
	}
	for _, text := range flags {
		if err := add(text, "--map"); err != nil {
			return nil, err
		}
	}
	if path == "" {
		return m, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, usageError("--map-file: %w", err)
	}
	defer f.Close()
	line := 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line++
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(strings.Replace(text, "=", " ", 1))
		if len(fields) == 0 {
			continue
		}
		if err := add(strings.Join(fields, "="), fmt.Sprintf("%s:%d", path, line)); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usageError("--map-file: %w", err)
	}
	return m, nil
}

// apply gives the pods among the objects their addresses, taking these from whoever
// has them. A pod whose manifest tells no address, or that has finished, is among the
// unplaced, and is at the address that it is given: manifests of a repository have no
// status, and a capture may be older than the cluster's state.
func (m mapping) apply(objects []k8ssync.Object, unplaced map[policy.Key]*policy.Endpoint) ([]k8ssync.Object, error) {
	if len(m) == 0 {
		return objects, nil
	}
	out := slices.Clone(objects)
	place := map[policy.Key]int{}
	accounts := map[policy.Key]bool{}
	for i, o := range out {
		place[o.Key] = i // the last of a key counts
		e, _ := o.Value.(*policy.Endpoint)
		if e == nil {
			e = unplaced[o.Key]
		} else if slices.ContainsFunc(e.Addrs, m.has) {
			less := *e
			less.Addrs = slices.DeleteFunc(slices.Clone(e.Addrs), m.has)
			out[i].Value = &less
		}
		if e != nil {
			accounts[policy.Key{Kind: policy.ServiceAccountKind, Namespace: e.Namespace, Name: e.ServiceAccount}] = true
		}
		accounts[o.Key] = true
	}
	var errs []error
	for _, e := range m {
		if e.key.Kind == policy.ServiceAccountKind {
			if !accounts[e.key] {
				errs = append(errs, fmt.Errorf("%s: no %s is among the manifests, and no pod runs as it", e.written, e.key))
				continue
			}
			pod := &policy.Endpoint{Namespace: e.key.Namespace, Name: "address-" + e.addr.String(), ServiceAccount: e.key.Name, Addrs: []netip.Addr{e.addr}}
			out = append(out, k8ssync.Object{Key: pod.Key(), Value: pod})
			continue
		}
		i, ok := place[e.key]
		if !ok {
			errs = append(errs, fmt.Errorf("%s: no %s is among the manifests", e.written, e.key))
			continue
		}
		pod, _ := out[i].Value.(*policy.Endpoint)
		if pod == nil {
			pod = unplaced[e.key]
		}
		if pod == nil {
			errs = append(errs, fmt.Errorf("%s: %s is on the host's network (spec.hostNetwork): no policy reaches it, and its address is that of the node", e.written, e.key))
			continue
		}
		more := *pod
		more.Addrs = append(slices.Clone(pod.Addrs), e.addr)
		out[i].Value = &more
	}
	return out, errors.Join(errs...)
}

func (m mapping) has(a netip.Addr) bool {
	return slices.ContainsFunc(m, func(e mapped) bool { return e.addr == a })
}
