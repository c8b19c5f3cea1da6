package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/live"
)

func newFlowsCommand() *cobra.Command {
	var socket, output, proto string
	var f live.Filter
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List the flows that live, whose they are and how they were judged",
		Long: `List the flows that the kernel remembers and the running daemon has judged: both
ends with pod and service account, the verdict, whether it stands, and how old the
flow is and what it carried.

VERDICT is allow or deny, and what is behind it: nothing if the policy in force decided
so; "kept" if an earlier one did and nothing that changed since is about the flow, so
that the kernel lets it go on; "again" if its next packet is judged. With --unjudged the
list has flows of pods that no policy is about as well; nothing is remembered of
those ("none").

Age, packets and bytes are known only if the kernel counts, which it does not by
default: "postern run --conntrack-accounting" switches that on, for flows that begin
later. What is not known is "-". VIA is the service address that was spoken to, and
the address that a translated source has for the receiver.`,
		Example: `  postern flows
  postern flows --pod prod-engineering/db --port 5432
  postern flows --account prod-engineering/api-service -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return usageError("--output %q: want text or json", output)
			}
			for flag, name := range map[string]string{"pod": f.Pod, "account": f.Account} {
				if ns, rest, ok := strings.Cut(name, "/"); name != "" && (!ok || ns == "" || rest == "" || strings.Contains(rest, "/")) {
					return usageError("--%s %q: want NAMESPACE/NAME", flag, name)
				}
			}
			if proto != "" {
				p, err := flow.ParseProto(proto)
				if err != nil {
					return usageError("--proto: %v", err)
				}
				f.Proto, f.HasProto = p, true
			}
			if f.Limit < 0 {
				return usageError("--limit %d: want 0 or more", f.Limit)
			}
			return listFlows(cmd.Context(), control.NewClient(socket), f, output, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&socket, "socket", control.DefaultSocket, "Unix socket of the daemon")
	flags.StringVarP(&output, "output", "o", "text", "text, or json: an object a line, as they are found")
	flags.StringVar(&f.Pod, "pod", "", "only flows of this pod, at either end (NAMESPACE/NAME)")
	flags.StringVar(&f.Account, "account", "", "only flows of pods with this service account (NAMESPACE/NAME)")
	flags.StringVar(&proto, "proto", "", "only flows of this protocol: tcp, udp, sctp, icmp, icmpv6, or a number")
	flags.Uint16Var(&f.Port, "port", 0, "only flows to this port, or to a service at this port")
	flags.BoolVar(&f.Unjudged, "unjudged", false, "also flows of which nothing is remembered, of pods on this host")
	flags.IntVar(&f.Limit, "limit", 10000, "how many to list at most; 0 for all")
	return cmd
}

// listFlows asks the daemon and prints. The number of those beyond the limit goes to
// stderr: it belongs to no flow.
func listFlows(ctx context.Context, c *control.Client, f live.Filter, output string, stdout, stderr io.Writer) error {
	var flows []live.Flow
	show := func(shown *live.Flow) error {
		flows = append(flows, *shown)
		return nil
	}
	if output == "json" {
		enc := newJSON(stdout)
		show = func(shown *live.Flow) error { return enc.Encode(shown) }
	}
	s, err := c.Flows(ctx, f, show)
	if errors.Is(err, control.ErrUnreachable) {
		return unreachable(err, "")
	}
	if err != nil {
		return err
	}
	if output == "text" {
		if err := printFlows(stdout, flows); err != nil {
			return err
		}
		if s.Shown == 0 {
			fmt.Fprintln(stdout, "no flows")
		}
	}
	if s.More > 0 {
		fmt.Fprintf(stderr, "postern: and %d more (--limit)\n", s.More)
	}
	if output == "text" && s.Shown > 0 && !(s.Accounting && s.Timestamps) {
		fmt.Fprintln(stderr, `postern: the kernel does not count packets or note times here; "postern run --conntrack-accounting" has it do so`)
	}
	return nil
}
