package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

// One connection is sent over for sendRound, sendTimes as often as there are rounds of other
// parts: what one carries differs by a tenth from one to the next.
const (
	sendRound = 400 * time.Millisecond
	sendTimes = 3
)

// throughput measures what one established connection carries.
func throughput(r *report.Report, o options) (err error) {
	kinds := []string{"none", "conntrack", "postern"}
	all := map[string]*contestant{}
	for _, kind := range kinds {
		c, err := newContestant(kind, kind, o)
		if err != nil {
			return err
		}
		all[kind] = c
		defer func() { err = errors.Join(err, c.close()) }()
	}
	rates := map[string][]float64{}
	if err := inTurn(o, "throughput", sendTimes, kinds, func(kind string) error {
		rate, err := all[kind].send()
		rates[kind] = append(rates[kind], rate)
		return err
	}); err != nil {
		return err
	}
	for _, kind := range kinds {
		r.Add("throughput/"+kind+"/Gbit-per-s", measure.Median(rates[kind]), report.None)
	}
	r.Add("throughput/postern/x-conntrack", measure.MedianRatio(rates["postern"], rates["conntrack"]), report.AtLeast(0.98))
	return nil
}

// send gives the Gbit/s of one connection from client to server, by what arrived.
func (c *contestant) send() (rate float64, err error) {
	cmd, err := child("send", serverAddr.String(), sendRound.String())
	if err != nil {
		return 0, err
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := c.client.Start(cmd); err != nil {
		return 0, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, fmt.Errorf("%s: send: %w", c.name, err)
	}
	return rate, json.Unmarshal([]byte(out.String()), &rate)
}

func sendMain(args []string) error {
	to, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	lasts, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, bulkPort).String(), patience)
	if err != nil {
		return err
	}
	c := conn.(*net.TCPConn)
	chunk := make([]byte, 256<<10)
	start := time.Now()
	for time.Since(start) < lasts {
		if _, err := c.Write(chunk); err != nil {
			return err
		}
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	var arrived uint64
	if err := binary.Read(c, binary.BigEndian, &arrived); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(float64(arrived) * 8 / 1e9 / time.Since(start).Seconds())
}

// swallow reads every connection of the bulk port to its end and says how much
// came.
func swallow(at netip.Addr) error {
	l, err := net.Listen("tcp", netip.AddrPortFrom(at, bulkPort).String())
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var n uint64
				for b := make([]byte, 256<<10); ; {
					k, err := c.Read(b)
					n += uint64(k)
					if err != nil {
						break
					}
				}
				binary.Write(c, binary.BigEndian, n)
			}()
		}
	}()
	return nil
}
