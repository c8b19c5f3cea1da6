package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/assertion"
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

// explainConfig is what the flags of explain say.
type explainConfig struct {
	stateFlags
	node, from, to, port, output string
	sourcePort                   uint16
	ipv6                         bool
	request                      requestFlags
}

func newExplainCommand() *cobra.Command {
	var c explainConfig
	cmd := &cobra.Command{
		Use:   "explain --from POD|ADDRESS --to POD|ADDRESS --port PROTO/PORT",
		Short: "Say whether one flow may pass, and why",
		Long: `Say whether one flow may pass, and why: who both ends are, every tier and policy
that was considered, the rule that decided, and for a denial the rule that came
closest and what it wanted. Where staged policies exist, also what they would do.

The running daemon is asked for its state, unless --source names a directory of
manifests or --state a file that "postern snapshot" wrote.

Ends are pods, as namespace/name, or addresses. The protocol is tcp/80, udp/53,
sctp/9, icmp:8/0 (type/code), icmpv6:128, or a protocol number. Nothing on the host
is read or changed.

With --http, --principal or --server-principal the question is what postern would
tell the sidecar in front of the pod that --to names: its ingress side, by address
and certificate. The packets are decided besides; ask about them without.

The answer comes from an evaluator that shares no code with the one packets meet;
both are asked, and should they ever differ, that is reported as a bug.

Exit code: 0 allowed, 1 denied, 2 usage, 3 no daemon answers, 4 postern failed, which
includes that the two evaluators differ.`,
		Example: `  postern explain --from prod/web --to prod/db --port tcp/5432
  postern explain --source ./manifests --from prod/web --to prod/db --port tcp/5432
  postern explain --source ./manifests --from 203.0.113.7 --to prod/db --port tcp/5432 -o json
  postern explain --from prod/web --to prod/db --port tcp/80 --http "GET /health" --principal spiffe://cluster.local/ns/prod/sa/web`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runExplain(cmd.Context(), c, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.register(f)
	f.StringVar(&c.node, "node", "", "with --source or --state: decide as this node would; by default as the node of both pods")
	f.StringVar(&c.from, "from", "", "who opens the flow (required)")
	f.StringVar(&c.to, "to", "", "whom it goes to, after any service address was translated (required)")
	f.StringVar(&c.port, "port", "", "protocol and destination port (required)")
	f.Uint16Var(&c.sourcePort, "source-port", 40000, "source port")
	f.BoolVar(&c.ipv6, "ipv6", false, "use the pods' IPv6 addresses")
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	c.request.register(f)
	return cmd
}

func runExplain(ctx context.Context, c explainConfig, stdout, stderr io.Writer) error {
	for _, required := range []struct{ flag, value string }{{"from", c.from}, {"to", c.to}, {"port", c.port}} {
		if required.value == "" {
			return usageError("--%s is required", required.flag)
		}
	}
	if c.output != "text" && c.output != "json" {
		return usageError("--output %q: want text or json", c.output)
	}
	if c.request.stated() {
		trace, err := c.explainRequest(ctx, stderr)
		if err != nil {
			return err
		}
		return answer(stdout, c.output, trace, trace.Status == explain.StatusOK)
	}
	trace, err := c.explain(ctx, stderr)
	// A state may change between the daemon's two answers, though not for ever.
	for range 5 {
		if !errors.Is(err, errMoved) {
			break
		}
		trace, err = c.explain(ctx, stderr)
	}
	if err != nil {
		return err
	}
	return answer(stdout, c.output, trace, trace.Verdict == explain.Allow)
}

// answer writes a trace as text or as JSON.
func answer(w io.Writer, output string, trace interface{ Text(io.Writer) error }, yes bool) (err error) {
	if output == "json" {
		err = writeJSON(w, trace)
	} else {
		err = trace.Text(w)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if !yes {
		return exitError{code: exitNo}
	}
	return nil
}

// explain evaluates the flow literally, and asks the engine that packets meet.
func (c *explainConfig) explain(ctx context.Context, stderr io.Writer) (trace explain.Trace, err error) {
	s, err := c.load(ctx, stderr)
	if err != nil {
		return trace, err
	}
	node := c.node
	if s.live != nil {
		if node != "" {
			return trace, usageError("--node: the running daemon decides as its own node; leave it out, or give --source or --state")
		}
		node = s.node
	}
	t, err := c.tuple(s)
	if err != nil {
		return trace, err
	}
	noteNumber(stderr, c.port)
	trace = explain.New(s.snapshot, explain.Options{Node: node}).Explain(t)
	d, err := s.decide(ctx, node, t)
	if err != nil {
		return trace, err
	}
	return trace, assertion.CrossCheck(d.Verdict, d.Reason, trace.Evaluation)
}

// noteNumber tells who wrote a number alone that it is not a port.
func noteNumber(stderr io.Writer, port string) {
	if n, err := strconv.ParseUint(port, 10, 8); err == nil {
		fmt.Fprintf(stderr, "postern: note: --port %d is protocol number %d; for a port write tcp/%d or udp/%d\n", n, n, n, n)
	}
}

// tuple reads the flags into a flow.
func (c *explainConfig) tuple(s *state) (t flow.Tuple, err error) {
	from, err := readEnd("from", c.from)
	if err != nil {
		return t, err
	}
	to, err := readEnd("to", c.to)
	if err != nil {
		return t, err
	}
	six := c.ipv6
	for _, end := range []assertion.End{from, to} {
		if end.Addr.IsValid() {
			six = end.Addr.Is6() // the pod at the other end follows
		}
	}
	src, err := s.address("from", from, six)
	if err != nil {
		return t, err
	}
	dst, err := s.address("to", to, six)
	if err != nil {
		return t, err
	}
	if src.Is6() != dst.Is6() {
		return t, usageError("--from %s and --to %s: one is IPv4 and the other IPv6", c.from, c.to)
	}
	port, err := assertion.ParsePort(c.port)
	if err != nil {
		return t, usageError("--port %q: %w", c.port, err)
	}
	return port.Tuple(src, dst, c.sourcePort), nil
}

func readEnd(flag, text string) (assertion.End, error) {
	end, err := assertion.ParseEnd(text)
	if err != nil {
		return end, usageError("--%s %q: %w", flag, text, err)
	}
	return end, nil
}

func (s *state) address(flag string, end assertion.End, six bool) (netip.Addr, error) {
	if end.Addr.IsValid() {
		return end.Addr, nil
	}
	pod := end.Pod(s.snapshot)
	if pod == nil {
		return netip.Addr{}, usageError("--%s %s: no such pod in %s, or it is not an endpoint (finished, on the host network, or without an address)", flag, end, s.from)
	}
	addrs := assertion.AddrsOf(pod, six)
	if len(addrs) == 0 {
		family := map[bool]string{false: "IPv4", true: "IPv6"}[six]
		return netip.Addr{}, usageError("--%s %s: the pod has no %s address", flag, end, family)
	}
	return addrs[0], nil
}
