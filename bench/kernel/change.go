package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/postern-project/postern/bench/report"
	"github.com/postern-project/postern/test/lab"
)

// talker is a child that answers a line with a line of JSON.
type talker struct {
	*exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

func (c *contestant) talkTo(h *lab.Host, args ...string) (*talker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &talker{Cmd: exec.Command(self, args...)}
	t.Stderr = os.Stderr
	out, err := t.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if t.in, err = t.StdinPipe(); err != nil {
		return nil, err
	}
	if err := h.Start(t.Cmd); err != nil {
		return nil, err
	}
	c.children = append(c.children, t.Cmd)
	t.out = bufio.NewReader(out)
	if line, err := t.out.ReadString('\n'); err != nil || line != "listening\n" {
		return nil, fmt.Errorf("child %v did not begin: %q, %v", args, line, err)
	}
	return t, nil
}

func (t *talker) ask(command string, answer any) error {
	if _, err := fmt.Fprintln(t.in, command); err != nil {
		return err
	}
	line, err := t.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: no answer to %q: %w", t.Args[1], command, err)
	}
	return json.Unmarshal(line, answer)
}

const (
	changeCount = 200 // of each kind
	revocations = 30
	liveFlows   = 10_000
	// watchFor is how long packets are waited for that should not come.
	watchFor = 500 * time.Millisecond
)

// changesInForce measures how long it takes from an object in the store to a policy
// in force, in a cluster of 100,000 pods and 10,800 policies, and when the last
// packet of 10,000 live flows arrives after their client lost its label.
func changesInForce(r *report.Report, o options) (err error) {
	if err := coldMemory(r); err != nil {
		return err
	}
	c, err := newContestant("none", "plane", o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	p, err := c.talkTo(c.lab.Node, "plane")
	if err != nil {
		return err
	}
	var all []float64
	for _, kind := range []string{"relabel", "edit"} {
		var took []float64
		for range changeCount {
			var a applied
			if err := p.ask(kind, &a); err != nil {
				return err
			}
			took = append(took, float64(a.InForce-a.Arrived)/1e6)
			time.Sleep(20 * time.Millisecond) // as changes come, not as one burst
		}
		all = append(all, took...)
		r.Add("change/"+kind+"-p50-ms", quantile(took, 0.5), report.None)
		r.Add("change/"+kind+"-p99-ms", quantile(took, 0.99), report.None)
	}
	r.Add("change/in-force-p99-ms", quantile(all, 0.99), report.AtMost(10))
	return c.revoke(r, p)
}

// quantile sorts values.
func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	return values[min(int(q*float64(len(values))), len(values)-1)]
}

// revoke takes the client's label away again and again while all flows send.
func (c *contestant) revoke(r *report.Report, p *talker) error {
	w, err := c.talkTo(c.server, "watch", serverAddr.String())
	if err != nil {
		return err
	}
	if err := c.start(c.client, "stream", "-from", clientAddr.String(), "-to", serverAddr.String()); err != nil {
		return err
	}
	var late, inForce []float64
	leaks := 0
	for n := range revocations {
		var a applied
		if err := p.ask("on", &a); err != nil {
			return err
		}
		if err := w.untilAllLive(); err != nil {
			return err
		}
		if err := p.ask("off", &a); err != nil {
			return err
		}
		time.Sleep(watchFor)
		var s seen
		if err := w.ask("take", &s); err != nil {
			return err
		}
		late = append(late, float64(max(s.Last-a.Arrived, 0))/1e6)
		inForce = append(inForce, float64(a.InForce-a.Arrived)/1e6)
		time.Sleep(watchFor)
		if err := w.ask("take", &s); err != nil {
			return err
		}
		leaks += s.Packets
		fmt.Fprintf(os.Stderr, "kernel: revocation %d of %d: last packet %.2f ms after the change, in force after %.2f ms\n", n+1, revocations, late[n], inForce[n])
	}
	r.Add("revoke/flows", liveFlows, report.None)
	r.Add("revoke/in-force-p99-ms", quantile(inForce, 0.99), report.None)
	r.Add("revoke/last-packet-p50-ms", quantile(late, 0.5), report.None)
	r.Add("revoke/last-packet-p99-ms", quantile(late, 0.99), report.AtMost(10))
	r.Add("revoke/packets-later-than-500-ms", float64(leaks), report.AtMost(0))
	return nil
}

// untilAllLive waits until a packet of every flow has arrived within a second.
func (w *talker) untilAllLive() error {
	var s seen
	for start := time.Now(); time.Since(start) < 30*time.Second; {
		time.Sleep(time.Second)
		if err := w.ask("take", &s); err != nil {
			return err
		}
		if s.Flows == liveFlows {
			return nil
		}
	}
	return fmt.Errorf("%d of %d flows are live after 30 s", s.Flows, liveFlows)
}
