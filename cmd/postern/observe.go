package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/observe"
)

func newObserveCommand() *cobra.Command {
	var socket, output string
	var filter observe.Filter
	var addresses []string
	var last int
	var follow bool
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Show what the daemon decides, as it does",
		Long: `Show the last decisions of the running daemon, and with --follow those that it
takes from now on. The daemon remembers the last 1,024 denials and as many accepted
flows. Flows that the kernel decides from its memory of earlier decisions are not
among them: postern does not see these.

A filter that is given several times takes what matches any of its values; different
filters must all match. Pods, accounts and addresses may be at either end.

Who reads too slowly misses decisions, and is told how many. The flow of packets and
other readers do not wait for anybody.`,
		Example: `  postern observe --verdict deny --last 20
  postern observe --follow --pod prod/db --account prod/web
  postern observe --follow --verdict pending -o json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return usageError("--output %q: want text or json", output)
			}
			for _, text := range addresses {
				p, err := readPrefix(text)
				if err != nil {
					return usageError("--address %q: want an address or a prefix", text)
				}
				filter.Addresses = append(filter.Addresses, p)
			}
			if err := filter.Check(); err != nil {
				return usageError("--%w", err)
			}
			if last < 0 {
				return usageError("--last %d: want 0 or more", last)
			}
			if follow && !cmd.Flags().Changed("last") {
				last = 0
			}
			w := cmd.OutOrStdout()
			print := textLines(w)
			if output == "json" {
				enc := newJSON(w)
				print = func(l observe.Line) error { return enc.Encode(l) }
			}
			err := control.NewClient(socket).Observe(cmd.Context(), filter, last, follow, print)
			if errors.Is(err, control.ErrUnreachable) {
				return unreachable(err, "")
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", control.DefaultSocket, "Unix socket of the daemon")
	f.StringVarP(&output, "output", "o", "text", "text, or json: an object a line, with the keys of the flow log")
	f.IntVar(&last, "last", 20, "how many of the last decisions to show; with --follow none unless given")
	f.BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	f.StringArrayVar(&filter.Verdicts, "verdict", nil, "allow, deny, or pending for what staged policies would decide otherwise (may be repeated, as all filters)")
	f.StringArrayVar(&filter.Pods, "pod", nil, "NAMESPACE/NAME, or NAMESPACE/ for all of a namespace")
	f.StringArrayVar(&filter.Accounts, "account", nil, "service account, as NAMESPACE/NAME or NAMESPACE/")
	f.StringArrayVar(&filter.Policies, "policy", nil, "policy that decided, or would if it were not staged: NAMESPACE/NAME, or NAME of a global one")
	f.StringArrayVar(&filter.Reasons, "reason", nil, "reason, as in the log: rule, end-of-tier, profile and so on")
	f.StringArrayVar(&addresses, "address", nil, "address or prefix")
	return cmd
}

func readPrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Prefix(a.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// textLines prints for people, a line each. What came from a cluster or a client is
// sanitized.
func textLines(w io.Writer) func(observe.Line) error {
	c := paletteOf(w)
	return func(l observe.Line) (err error) {
		if l.Missed > 0 {
			_, err = fmt.Fprintf(w, "%s\n", c.warn(fmt.Sprintf("(%d decisions missed: they came faster than they could be shown)", l.Missed)))
			return err
		}
		verdict := c.bad("DENY ")
		if l.Verdict == "allow" {
			verdict = c.good("ALLOW")
		}
		text := l.Proto + " " + lineEnd(l.Src, l.SrcPort, l.SrcPod, l.SrcAccount) + " -> " + lineEnd(l.Dst, l.DstPort, l.DstPod, l.DstAccount)
		if l.ICMPType != nil && l.ICMPCode != nil {
			text += fmt.Sprintf(" type %d code %d", *l.ICMPType, *l.ICMPCode)
		}
		if l.Kind == "request" {
			text += strings.TrimRight(" request "+l.Method+" "+l.Path, " ")
		}
		text += ": " + lineReason(l.Direction, l.Reason, l.Tier, l.PolicyKind, l.Policy, l.Rule)
		if l.Problem != "" {
			text += ": " + l.Problem
		}
		pending := ""
		if l.Pending != "" {
			pending = c.warn("; staged policies would " + l.Pending + " it: " + oneLine(lineReason("", l.PendingReason, "", l.PendingPolicyKind, l.PendingPolicy, l.PendingRule)))
		}
		_, err = fmt.Fprintf(w, "%s %s %s%s\n", l.Decided.Local().Format("15:04:05.000"), verdict, oneLine(text), pending)
		return err
	}
}

// lineEnd words one end: "prod/web (web-sa) 10.0.0.1:80".
func lineEnd(a netip.Addr, port *uint16, pod, account string) string {
	text := a.String()
	if port != nil {
		text = netip.AddrPortFrom(a, *port).String()
	}
	if pod == "" {
		return text
	}
	return pod + " (" + account + ") " + text
}

// lineReason words who decided: "ingress rule 2 of NetworkPolicy prod/db in tier default".
func lineReason(direction, reason, tier, kind, policy string, rule *int) string {
	text := strings.TrimLeft(direction+" "+reason, " ")
	if rule != nil {
		text += " " + strconv.Itoa(*rule) + " of " + kind + " " + policy
	}
	if tier != "" {
		text += " in tier " + tier
	}
	return text
}
