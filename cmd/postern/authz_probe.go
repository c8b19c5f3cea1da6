package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/authz"
)

// probeConfig is what the flags of authz probe say.
type probeConfig struct {
	socket, from, to    string
	principal, asServer string
	http                string
}

func newAuthzCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "authz",
		Short: "Check that Envoy can ask postern",
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newProbeCommand())
	return cmd
}

func newProbeCommand() *cobra.Command {
	var c probeConfig
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Ask a running postern what Envoy would ask",
		Long: `Ask a running postern what Envoy would ask, through the same socket: that it
answers, that it denies what it must, that policy is in force, and how long it
takes. With --from and --to also what it says of a request; addresses are those of
pods, as the proxy sees them.

To see whether a sidecar may ask, run it as the sidecar's user:
setpriv --reuid 1337 --regid 1337 --clear-groups postern authz probe`,
		Example: `  postern authz probe
  postern authz probe --from 10.244.0.5 --to 10.244.0.10:8080 --http "GET /health" --principal spiffe://cluster.local/ns/shop/sa/web`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runProbe(cmd.Context(), c, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.socket, "socket", authz.DefaultSocket, "the daemon's --authz-socket")
	f.StringVar(&c.from, "from", "", "address of the client, with or without a port")
	f.StringVar(&c.to, "to", "", "address and port of the pod")
	f.StringVar(&c.principal, "principal", "", "SPIFFE ID of the client's certificate; empty for plain text")
	f.StringVar(&c.asServer, "server-principal", "", "SPIFFE ID of the pod's own certificate")
	f.StringVar(&c.http, "http", "", `method and path, such as "GET /health"; empty for a connection that is not HTTP`)
	return cmd
}

// question reads the flags; nil if they ask nothing.
func (c *probeConfig) question() (*authz.Question, error) {
	if c.from == "" && c.to == "" {
		if c.principal != "" || c.asServer != "" || c.http != "" {
			return nil, usageError("--from and --to are required with --principal, --server-principal and --http")
		}
		return nil, nil
	}
	q := &authz.Question{SourcePrincipal: c.principal, DestinationPrincipal: c.asServer}
	var err error
	if q.Source, err = netip.ParseAddrPort(c.from); err != nil {
		a, err := netip.ParseAddr(c.from)
		if err != nil {
			return nil, usageError("--from %q: want an address", c.from)
		}
		q.Source = netip.AddrPortFrom(a, 40000)
	}
	if q.Destination, err = netip.ParseAddrPort(c.to); err != nil {
		return nil, usageError("--to %q: want an address and a port, such as 10.244.0.10:8080", c.to)
	}
	if c.http != "" {
		if q.Method, q.Path, err = readHTTP(c.http); err != nil {
			return nil, err
		}
	}
	return q, nil
}

func runProbe(ctx context.Context, c probeConfig, out io.Writer) error {
	asked, err := c.question()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	info, err := os.Stat(c.socket)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%w: does postern run with --authz-socket %s?", err, c.socket)}
	}
	fmt.Fprintf(out, "socket   %s %s\n", oneLine(c.socket), info.Mode())
	client, err := authz.NewClient(c.socket)
	if err != nil {
		return err
	}
	defer client.Close()
	nothing, err := client.Ask(ctx, nil)
	if err != nil {
		return exitError{exitUnreachable, fmt.Errorf("%s: %w: may this user ask (--authz-socket-group)?", c.socket, err)}
	}
	// Addresses that no pod has (RFC 5737).
	stranger := &authz.Question{Source: netip.MustParseAddrPort("192.0.2.1:40000"), Destination: netip.MustParseAddrPort("192.0.2.2:80"), Method: "GET", Path: "/"}
	strange, err := client.Ask(ctx, stranger)
	if err != nil {
		return err
	}
	failed := false
	line := func(ok bool, what string, a authz.Answer) {
		mark := "ok      "
		if !ok {
			mark, failed = "FAILED  ", true
		}
		fmt.Fprintf(out, "%s %s: %s\n", mark, what, oneLine(a.String()))
	}
	line(nothing.Reason == "invalid-request", "a message that asks nothing is denied", nothing)
	line(strange.Reason == "no-local-endpoint", "policy is in force, and strangers are denied", strange)
	if strange.Generation > 0 {
		fmt.Fprintf(out, "state    generation %d\n", strange.Generation)
	}
	median, slowest, err := client.Time(ctx, stranger, 200)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "time     %s, at most %s, of 200 checks one after the other\n", median.Round(time.Microsecond), slowest.Round(time.Microsecond))
	if asked != nil {
		a, err := client.Ask(ctx, asked)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "answer   %s\n", oneLine(a.String()))
		failed = failed || a.Status != 0
	}
	if failed {
		return exitError{code: exitNo}
	}
	return nil
}
