package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

// In the part connect client and server take most of two processors, so that loops that
// differ much give rates that differ little. Here they do next to nothing: SYNs come
// faster than any loop decides them, all of them new, and the server's namespace counts
// and drops what arrives.

const (
	// tooMany is more SYNs a second than any loop decides.
	tooMany       = 400_000
	verdictsRound = time.Second
)

// verdicts measures how many packets a second each loop decides at most.
func verdicts(r *report.Report, o options) (err error) {
	names := []string{"raw", "callback", "postern"}
	of := map[string]*contestant{}
	for _, name := range names {
		c, err := newContestant(name, name, o)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.close()) }()
		of[name] = c
		if err := c.run(c.server, "nft", "table inet sink { counter arrived { }; chain c { type filter hook prerouting priority -400; ip saddr "+
			strangers.String()+" counter name arrived drop; }; }"); err != nil {
			return err
		}
		if err := c.lab.Node.Do(func() error {
			return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent", []byte("1"), 0o644)
		}); err != nil {
			return err
		}
		if _, _, err := c.saturated(); err != nil { // warm-up
			return err
		}
	}
	rates, cpu := map[string][]float64{}, map[string][]float64{}
	if err := inTurn(o, "verdicts", 1, names, func(name string) error {
		rate, each, err := of[name].saturated()
		rates[name], cpu[name] = append(rates[name], rate), append(cpu[name], each)
		return err
	}); err != nil {
		return err
	}
	for _, name := range names {
		r.Add("verdicts/"+name+"/per-s", measure.Median(rates[name]), report.None)
		r.Add("verdicts/"+name+"/cpu-us", measure.Median(cpu[name]), report.None)
	}
	for name, target := range map[string]report.Target{"raw": report.None, "callback": report.AtLeast(1.6)} {
		r.Add("verdicts/postern/x-"+name, measure.MedianRatio(rates["postern"], rates[name]), target)
	}
	return nil
}

// saturated gives how many packets a second arrive at the server, and what each has
// cost the decider, in µs.
func (c *contestant) saturated() (rate, cpu float64, err error) {
	used, _, err := c.processorTime()
	if err != nil {
		return 0, 0, err
	}
	before, err := c.packets("sink")
	if err != nil {
		return 0, 0, err
	}
	cmd, err := child("flood", "-to", serverAddr.String(), "-from", strangers.Addr().Next().String(), "-fresh", fmt.Sprint(c.sent),
		"-rate", fmt.Sprint(tooMany), "-ports", fmt.Sprint(ports), "-first", fmt.Sprint(firstPort), "-lasts", verdictsRound.String())
	if err != nil {
		return 0, 0, err
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := c.client.Start(cmd); err != nil {
		return 0, 0, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, 0, err
	}
	// What still waits was sent in time and is decided without a flood beside: it is left out.
	after, err := c.packets("sink")
	if err != nil {
		return 0, 0, err
	}
	used2, _, err := c.processorTime()
	if err != nil {
		return 0, 0, err
	}
	var sent float64
	if err := json.Unmarshal([]byte(out.String()), &sent); err != nil {
		return 0, 0, err
	}
	c.sent += int(sent*verdictsRound.Seconds()*1.1) + 1
	time.Sleep(1200 * time.Millisecond) // until conntrack has forgotten them
	n := float64(after - before)
	return n / verdictsRound.Seconds(), microseconds(used2-used) / n, nil
}
