package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/capture"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/filter/packet"
	"github.com/postern-project/postern/filter/replay"
	"github.com/postern-project/postern/filter/speed"
)

// benchDecideConfig is what the flags of bench decide say.
type benchDecideConfig struct {
	benchFlags
	replay      replayConfig
	rules, pods []int
	packets     int
	workers     int
}

func newBenchDecideCommand() *cobra.Command {
	c := benchDecideConfig{replay: replayConfig{invalid: "drop", midStream: "kernel", maxFlows: 1, output: "text"}}
	cmd := &cobra.Command{
		Use:   "decide [CAPTURE...]",
		Short: "Measure decisions in memory",
		Long: `Measure, on packets that lie ready in memory: the decoder alone; a packet that begins
a flow, decoded and decided, as the verdict loop does it; and a packet in a replay, which
mostly belongs to a flow that was decided before.

Packets are those of the captures, judged by --policy and --world, or else generated
traffic in generated clusters of --pods pods with --rules rules, a cluster for each
pair of numbers. Rates and times of one are processor time and clock of 1 to
--workers threads; the latency is that of single packets.

Exit code: 0 done, 1 slower than --fail-below allows, 2 usage.`,
		Example: `  postern bench decide
  postern bench decide --rules 10,1000,100000 --pods 10000 --save now.json
  postern bench decide traffic.pcap --policy ./manifests --against before.json --fail-below 0.9`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.run(cmd.Context(), args, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	c.register(f, 500*time.Millisecond)
	f.StringVar(&c.replay.policy, "policy", "", "with captures: manifests to judge by")
	f.StringVar(&c.replay.world, "world", "", "with captures: further manifests")
	f.IntSliceVar(&c.rules, "rules", []int{10, 100, 1000, 10000}, "without captures: numbers of rules")
	f.IntSliceVar(&c.pods, "pods", []int{1000, 100000}, "without captures: numbers of pods")
	f.IntVar(&c.packets, "packets", 1<<16, "packets to hold in memory at most")
	f.IntVar(&c.workers, "workers", runtime.GOMAXPROCS(0), "threads to measure with at most")
	return cmd
}

func (c *benchDecideConfig) run(ctx context.Context, captures []string, stdin io.Reader, stdout, stderr io.Writer) error {
	switch err := c.check(); {
	case err != nil:
		return err
	case c.packets < 1 || c.packets > 1<<24:
		return usageError("--packets %d: want 1 to %d", c.packets, 1<<24)
	case c.workers < 1 || c.workers > 1024:
		return usageError("--workers %d: want 1 to 1024", c.workers)
	}
	if err := checkTraffic(captures, c.replay); err != nil {
		return err
	}
	for _, numbers := range [][]int{c.rules, c.pods} {
		for _, n := range numbers {
			if n < 1 || n > 1_000_000 {
				return usageError("--rules, --pods: %d: want 1 to 1000000", n)
			}
		}
	}
	earlier, err := c.earlier("decide")
	if err != nil {
		return err
	}
	r := speed.NewResult("decide", version, "packets")
	r.Reference = speed.NewFlow
	r.Settings["duration"], r.Settings["packets"] = c.lasts.String(), fmt.Sprint(c.packets)
	if len(captures) > 0 {
		err = c.captured(ctx, r, captures, stdin, stderr)
	} else {
		err = c.generated(ctx, r, stderr)
	}
	if err != nil {
		return err
	}
	return c.finish(r, earlier, stdout)
}

func (c *benchDecideConfig) generated(ctx context.Context, r *speed.Result, stderr io.Writer) (err error) {
	r.Settings["traffic"] = speed.Generated
	for _, pods := range c.pods {
		for _, rules := range c.rules {
			fmt.Fprintf(stderr, "postern: %d pods, %d rules\n", pods, rules)
			w := speed.Generate(pods, rules, c.packets)
			rs, problems := compile.Compile(w.Snapshot, compile.Options{})
			if rs == nil || len(problems) > 0 {
				return fmt.Errorf("compile the generated cluster: %v", problems)
			}
			if r.Rows, err = speed.Decide(ctx, c.load(rs, w.Packets), speed.Row{Pods: pods, Rules: rules}, r.Rows); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *benchDecideConfig) load(rs *filter.Ruleset, packets [][]byte) speed.Load {
	engine := new(filter.Engine)
	engine.Swap(rs)
	return speed.Load{Engine: engine, Replay: replay.Config{Policy: rs}, Packets: packets, Workers: c.workers, Lasts: c.lasts}
}

func (c *benchDecideConfig) captured(ctx context.Context, r *speed.Result, captures []string, stdin io.Reader, stderr io.Writer) error {
	r.Settings["traffic"] = strings.Join(captures, " ")
	cfg, err := c.replay.config(stderr)
	if err != nil {
		return err
	}
	packets, err := loadPackets(captures, c.packets, stdin)
	if err != nil {
		return err
	}
	r.Settings["packets"] = fmt.Sprint(len(packets))
	r.Rows, err = speed.Decide(ctx, c.load(cfg.Policy, packets), speed.Row{}, nil)
	return err
}

// loadPackets reads decodable packets of captures into memory, from their IP headers
// on and at most as many bytes as a queue copies.
func loadPackets(names []string, most int, stdin io.Reader) (packets [][]byte, err error) {
	const copied = 128
	err = eachPacket(names, stdin, func(p *capture.Packet) bool {
		b := p.IP[:min(len(p.IP), copied)]
		if _, st := packet.Decode(b); st == packet.OK {
			packets = append(packets, bytes.Clone(b))
		}
		return len(packets) < most
	})
	if err == nil && len(packets) == 0 {
		err = usageError("bench decide: no packet in %s can be decoded", oneLine(strings.Join(names, ", ")))
	}
	return packets, err
}
