package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/filter/replay"
)

// replayConfig is what the flags of replay say.
type replayConfig struct {
	policy, world, baseline, node string
	maps                          []string
	mapFile                       string
	nodeAddrs                     []string
	vxlanPort                     uint16
	allowTunnels                  bool
	invalid, midStream            string
	maxFlows, top                 int
	output, write                 string
}

func newReplayCommand() *cobra.Command {
	var c replayConfig
	cmd := &cobra.Command{
		Use:   "replay CAPTURE... --policy DIR",
		Short: "Say what policy would do to captured traffic",
		Long: `Take captured traffic through policy: which flows would be allowed, which denied,
by which rule, and, with --baseline, which would be decided otherwise than now.

A CAPTURE is a pcap or pcapng, gzipped or not, of any size; - is the standard input.
Several are one after the other in time. Ethernet with VLAN tags, raw IP, Linux
cooked (tcpdump -i any) and BSD loopback are understood. Packets go through the
parser and the engine that they meet on a node, and a table of flows like the
kernel's: a flow is decided once, and its other packets and its answers follow.

--policy has the manifests to judge by; pods, namespaces and service accounts may be
among them, or in --world. Addresses must be those that pods see: behind the
translation of service addresses. An address that is no pod's is judged as such, by
what rules say of addresses; --map IP=namespace/pod gives it to a pod among the
manifests, whether these know an address of it or not, and --map
IP=sa:namespace/account to a pod without labels of that account.

With --write every packet goes into a new pcapng, with the verdict, policy and rule
as its comment: look for frame.comment contains "verdict=deny" in Wireshark.

Exit code: 0 done, 1 the verdict of some flow differs from the baseline's, 2 usage,
or something could not be read; a damaged capture is reported up to the damage.`,
		Example: `  postern replay traffic.pcap --policy ./policy --world cluster.yaml
  postern replay *.pcapng.gz --policy new/ --baseline now/ --world cluster.yaml
  tcpdump -i any -w - | postern replay - --policy ./manifests -o jsonl
  postern replay traffic.pcap --policy ./manifests --write judged.pcapng`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("replay: want the captures to replay")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runReplay(cmd.Context(), c, args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.policy, "policy", "", "manifests to judge by (required)")
	f.StringVar(&c.world, "world", "", "further manifests, such as pods, namespaces and service accounts")
	f.StringVar(&c.baseline, "baseline", "", "manifests in force now, to compare with; --world belongs to both")
	f.StringArrayVar(&c.maps, "map", nil, "IP=namespace/pod or IP=sa:namespace/account: whose address this is (may be repeated)")
	f.StringVar(&c.mapFile, "map-file", "", "file of such lines")
	f.StringVar(&c.node, "node", "", "judge only for the pods of this node, as it would; by default for all pods")
	f.StringArrayVar(&c.nodeAddrs, "node-address", nil, "address of a node, whose flows to pods are accepted without a question (may be repeated)")
	f.Uint16Var(&c.vxlanPort, "vxlan-port", nft.DefaultVXLANPort, "UDP port to which pods may not send; 0 for none")
	f.BoolVar(&c.allowTunnels, "allow-tunnels", false, "let pods send VXLAN and IP in IP, as far as policy allows")
	f.StringVar(&c.invalid, "conntrack-invalid", "drop", "what becomes of packets that fit no flow: drop, or judge them like new flows")
	f.StringVar(&c.midStream, "mid-stream", "kernel", "who opened a TCP connection that is under way already: kernel, whoever sends first, or guess, the higher port")
	f.IntVar(&c.maxFlows, "max-flows", replay.DefaultMaxFlows, "flows to follow at once")
	f.IntVar(&c.top, "top", 10, "how many pairs and addresses to print as text; 0 for all")
	f.StringVarP(&c.output, "output", "o", "text", "text or json for a report; jsonl or csv for a list of flows")
	f.StringVar(&c.write, "write", "", "write the packets with their verdicts as comments to this pcapng")
	return cmd
}

func (c *replayConfig) check() error {
	switch {
	case c.policy == "":
		return usageError("--policy is required: the manifests to judge by")
	case c.invalid != "drop" && c.invalid != "judge":
		return usageError("--conntrack-invalid %q: want drop or judge", c.invalid)
	case c.midStream != "kernel" && c.midStream != "guess":
		return usageError("--mid-stream %q: want kernel or guess", c.midStream)
	case c.maxFlows < 1 || c.maxFlows > 1<<27:
		return usageError("--max-flows %d: want 1 to %d", c.maxFlows, 1<<27)
	case c.top < 0:
		return usageError("--top %d: want 0 or more", c.top)
	}
	switch c.output {
	case "text", "json", "jsonl", "csv":
		return nil
	}
	return usageError("--output %q: want text, json, jsonl or csv", c.output)
}

// config compiles what the flags name.
func (c *replayConfig) config(stderr io.Writer) (cfg replay.Config, err error) {
	mapping, err := readMapping(c.maps, c.mapFile)
	if err != nil {
		return cfg, err
	}
	paths := []string{c.policy}
	if c.baseline != "" {
		paths = append(paths, c.baseline)
	}
	snapshots, err := loadOver(c.world, paths, mapping.apply, stderr)
	if err != nil {
		return cfg, exitError{exitUsage, err}
	}
	var sets []*filter.Ruleset
	for i, s := range snapshots {
		rs, _ := compile.Compile(s, compile.Options{Node: c.node})
		if rs == nil {
			return cfg, fmt.Errorf("%s: the engine could not compile the manifests: please report this as a bug", paths[i])
		}
		sets = append(sets, rs)
	}
	if sets[0].Sizes().Endpoints == 0 {
		fmt.Fprintln(stderr, "postern: warning: no pod is known, so nothing would be asked about; give the cluster's pods with --world, as kubectl get pods,namespaces,serviceaccounts -A -o yaml prints them")
	}
	cfg = replay.Config{
		Policy: sets[0], MaxFlows: c.maxFlows, VXLANPort: c.vxlanPort, AllowTunnels: c.allowTunnels,
		JudgeInvalid: c.invalid == "judge", GuessMidStream: c.midStream == "guess", NodeAddrs: map[netip.Addr]bool{},
	}
	if len(sets) > 1 {
		cfg.Baseline = sets[1]
	}
	for _, text := range c.nodeAddrs {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return cfg, usageError("--node-address %q: want an address", text)
		}
		cfg.NodeAddrs[a.Unmap()] = true
	}
	return cfg, nil
}

// captureReport is what was read of one capture.
type captureReport struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
	Error   string `json:"error,omitempty"`
}

func runReplay(ctx context.Context, c replayConfig, names []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	cfg, err := c.config(stderr)
	if err != nil {
		return err
	}
	list := newFlowList(c.output, &cfg, stdout)
	cfg.Ended = list.add // a method value of nil is good
	run := replayRun{cfg: &cfg, replayer: replay.New(cfg), stdin: stdin}
	if list == nil || !isTerminal(stdout) { // the flows would push it up the screen
		run.progress = newReadingBar(stderr)
	}
	if c.write != "" {
		if err := c.spare(names); err != nil {
			return err
		}
		file, err := os.Create(c.write)
		if err != nil {
			return exitError{exitUsage, fmt.Errorf("--write: %w", err)}
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		if run.out, err = capture.NewWriter(file, "postern"); err != nil {
			return fmt.Errorf("--write: %w", err)
		}
	}
	var captures []captureReport
	broken := false
	for _, name := range names {
		r, err := run.capture(ctx, name)
		if err != nil {
			return err
		}
		if r.Error != "" {
			broken = true
			run.progress.end()
			fmt.Fprintln(stderr, "postern:", oneLine(r.Error))
		}
		captures = append(captures, r)
	}
	run.progress.end()
	report := run.replayer.Finish()
	if run.out != nil {
		if err := run.out.Flush(); err != nil {
			return fmt.Errorf("--write: %w", err)
		}
	}
	if n := report.Kinds[replay.Cut.String()]; n > 0 {
		broken = true
		fmt.Fprintf(stderr, "postern: %s cut off too early to read their ports, the first is packet %d of its capture: capture with a larger snap length (tcpdump -s)\n",
			plural(int(n), "packet"), report.CutFirst)
	}
	if err := c.print(stdout, report, captures, list); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	switch {
	case broken:
		return exitError{code: exitUsage}
	case len(report.Changes) > 0 || report.MoreChanged.Flows > 0:
		return exitError{code: exitNo}
	}
	return nil
}

// spare refuses to write over a capture that is to be read.
func (c *replayConfig) spare(names []string) error {
	out, err := os.Stat(c.write)
	if err != nil {
		return nil // os.Create says why, if it matters
	}
	for _, name := range names {
		if in, err := os.Stat(name); err == nil && os.SameFile(in, out) {
			return usageError("--write %s: is among the captures to read; name another file", c.write)
		}
	}
	return nil
}

func (c *replayConfig) print(w io.Writer, report *replay.Report, captures []captureReport, list *flowList) error {
	switch c.output {
	case "json":
		return writeJSON(w, struct {
			Captures []captureReport `json:"captures"`
			*replay.Report
		}{captures, report})
	case "text":
		return replayText(w, report, captures, c.top, c.baseline != "")
	}
	return list.flush()
}

// replayRun is a replay under way.
type replayRun struct {
	cfg      *replay.Config
	replayer *replay.Replayer
	stdin    io.Reader
	out      *capture.Writer // nil without --write
	progress *readingBar
}

// capture replays one capture. What is wrong with it is in the report; the error is
// of everything else.
func (run *replayRun) capture(ctx context.Context, name string) (r captureReport, err error) {
	r.Name = name
	in, size := run.stdin, int64(0)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			r.Error = err.Error()
			return r, nil
		}
		defer f.Close()
		in = f
	}
	if f, ok := in.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
	}
	reader, err := capture.NewReader(name, run.progress.watch(name, in, size))
	for err == nil {
		var p *capture.Packet
		if p, err = reader.Next(); err != nil {
			break
		}
		r.Packets++
		n := run.replayer.Packet(p)
		if run.out != nil {
			if err := run.out.Write(p, run.cfg.Comment(&n)); err != nil {
				return r, fmt.Errorf("--write: %w", err)
			}
		}
		if r.Packets%1024 == 0 {
			if ctx.Err() != nil {
				return r, fmt.Errorf("replay: %w", ctx.Err())
			}
			run.progress.packets(1024)
		}
	}
	if err != io.EOF {
		r.Error = err.Error()
	}
	return r, nil
}
