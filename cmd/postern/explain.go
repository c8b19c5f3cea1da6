package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// explainConfig is what the flags of explain say.
type explainConfig struct {
	source, node, from, to, port, output string
	sourcePort                           uint16
	ipv6                                 bool
}

func newExplainCommand() *cobra.Command {
	var c explainConfig
	cmd := &cobra.Command{
		Use:   "explain --source DIR --from POD|ADDRESS --to POD|ADDRESS --port PROTO/PORT",
		Short: "Say whether one flow may pass, and why",
		Long: `Say whether one flow may pass under the manifests in a directory, and why: who
both ends are, every tier and policy that was considered, the rule that decided,
and for a denial the rule that came closest and what it wanted.

Ends are pods, as namespace/name, or addresses. The protocol is tcp/80, udp/53,
sctp/9, icmp:8/0 (type/code), icmpv6:128, or a protocol number. Nothing on the host
is read or changed.

The answer comes from an evaluator that shares no code with the one packets meet;
both are asked, and should they ever differ, that is reported as a bug.

Exit code: 0 allowed, 1 denied, 2 usage, 4 the two evaluators differ.`,
		Example: `  postern explain --source ./manifests --from prod/web --to prod/db --port tcp/5432
  postern explain --source ./manifests --from 203.0.113.7 --to prod/db --port tcp/5432 -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runExplain(c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.source, "source", "", "directory of Kubernetes manifests (required)")
	f.StringVar(&c.node, "node-name", "", "decide as this node would; by default as the node of both pods")
	f.StringVar(&c.from, "from", "", "who opens the flow (required)")
	f.StringVar(&c.to, "to", "", "whom it goes to, after any service address was translated (required)")
	f.StringVar(&c.port, "port", "", "protocol and destination port (required)")
	f.Uint16Var(&c.sourcePort, "source-port", 40000, "source port")
	f.BoolVar(&c.ipv6, "ipv6", false, "use the pods' IPv6 addresses")
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	return cmd
}

func runExplain(c explainConfig, stdout, stderr io.Writer) error {
	for _, required := range []struct{ flag, value string }{{"source", c.source}, {"from", c.from}, {"to", c.to}, {"port", c.port}} {
		if required.value == "" {
			return usageError("--%s is required", required.flag)
		}
	}
	if c.output != "text" && c.output != "json" {
		return usageError("--output %q: want text or json", c.output)
	}
	objects, err := file.Load(c.source)
	if err != nil {
		return err
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	for _, p := range store.Problems() {
		fmt.Fprintln(stderr, "postern: warning:", sanitize(p.Error()))
	}
	s := store.Snapshot()
	t, err := c.tuple(s)
	if err != nil {
		return err
	}
	trace := explain.New(s, explain.Options{Node: c.node}).Explain(t)
	if c.output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(trace)
	} else {
		err = trace.Text(stdout)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := crossCheck(s, c.node, t, trace); err != nil {
		return err
	}
	if trace.Verdict != explain.Allow {
		return exitError{code: exitNo}
	}
	return nil
}

// crossCheck asks the engine that packets meet.
func crossCheck(s *policy.Snapshot, node string, t flow.Tuple, trace explain.Trace) error {
	rs, _ := compile.Compile(s, compile.Options{Node: node})
	if rs == nil {
		return fmt.Errorf("the engine could not compile what was explained: please report this as a bug")
	}
	d := rs.Decide(t)
	if (d.Verdict == filter.Accept) != (trace.Verdict == explain.Allow) || d.Reason.String() != string(trace.Reason) {
		return fmt.Errorf("the engine says %s (%s) where the explanation says %s (%s): please report this as a bug, with the manifests", d.Verdict, d.Reason, trace.Verdict, trace.Reason)
	}
	return nil
}

// tuple reads the flags into a flow.
func (c *explainConfig) tuple(s *policy.Snapshot) (t flow.Tuple, err error) {
	six := c.ipv6
	for _, end := range []string{c.from, c.to} {
		if a, err := netip.ParseAddr(end); err == nil {
			six = a.Is6() // the pod at the other end follows
		}
	}
	if t.Src, err = c.end(s, "from", c.from, six); err != nil {
		return t, err
	}
	if t.Dst, err = c.end(s, "to", c.to, six); err != nil {
		return t, err
	}
	if t.Src.Is6() != t.Dst.Is6() {
		return t, usageError("--from %s and --to %s: one is IPv4 and the other IPv6", c.from, c.to)
	}
	if err := parseProtocol(&t, c.port); err != nil {
		return t, err
	}
	if t.Ported {
		t.SrcPort = c.sourcePort
	}
	return t, nil
}

func (c *explainConfig) end(s *policy.Snapshot, flag, text string, six bool) (netip.Addr, error) {
	text = strings.TrimPrefix(text, "pod:")
	namespace, name, isPod := strings.Cut(text, "/")
	if !isPod {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return a, usageError("--%s %q: want an address, or a pod as namespace/name", flag, text)
		}
		return a.Unmap(), nil
	}
	family := map[bool]string{false: "IPv4", true: "IPv6"}[six]
	for _, ep := range s.Endpoints {
		if ep.Namespace != namespace || ep.Name != name {
			continue
		}
		for _, a := range ep.Addrs {
			if a.Is6() == six {
				return a, nil
			}
		}
		return netip.Addr{}, usageError("--%s %s: the pod has no %s address", flag, text, family)
	}
	return netip.Addr{}, usageError("--%s %s: no such pod in %s, or it is not an endpoint (finished, on the host network, or without an address)", flag, text, c.source)
}

// parseProtocol reads tcp/80, icmp:8/0 or a number.
func parseProtocol(t *flow.Tuple, text string) error {
	wrong := usageError("--port %q: want tcp/80, udp/53, sctp/9, icmp:8/0, icmpv6:128 or a protocol number", text)
	name, rest, cut := text, "", false
	if i := strings.IndexAny(text, "/:"); i >= 0 {
		name, rest, cut = text[:i], text[i+1:], true
	}
	proto, err := flow.ParseProto(name)
	if err != nil {
		return wrong
	}
	t.Proto = proto
	switch {
	case proto.HasPorts():
		port, err := strconv.ParseUint(rest, 10, 16)
		if err != nil {
			return wrong
		}
		t.Ported, t.DstPort = true, uint16(port)
	case cut && (proto == flow.ICMP || proto == flow.ICMPv6):
		typ, code, _ := strings.Cut(rest, "/")
		n, err := strconv.ParseUint(typ, 10, 8)
		if err != nil {
			return wrong
		}
		t.ICMPType = uint8(n)
		if code != "" {
			if n, err = strconv.ParseUint(code, 10, 8); err != nil {
				return wrong
			}
			t.ICMPCode = uint8(n)
		}
	case cut:
		return wrong
	}
	return nil
}

// sanitize takes control characters out of text that may come from a manifest, so
// that none reaches the terminal.
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
