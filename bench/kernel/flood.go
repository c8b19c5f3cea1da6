package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/bench/measure"
	"github.com/postern-project/postern/bench/report"
)

const (
	floodTimes = 10 // the capacity
	// firstDenied is the first port that no rule allows.
	firstDenied = 20_000
	// floodLead is how long the flood lasts before others are measured, floodRound
	// how long they are.
	floodLead  = 300 * time.Millisecond
	floodRound = time.Second
)

// floods measures the rate of new connections of a client while another pod sends
// SYNs that are denied, ten times as many as postern decides new connections: all to
// one port, and to as many ports as there are.
func floods(r *report.Report, o options) (err error) {
	var static, ours *contestant
	for kind, to := range map[string]**contestant{"static": &static, "postern": &ours} {
		c, err := newContestant(kind, kind, o)
		if err != nil {
			return err
		}
		*to = c
		defer func() { err = errors.Join(err, c.close()) }()
		if err := c.countLeaks(); err != nil {
			return err
		}
	}
	capacity, err := ours.capacity()
	if err != nil {
		return err
	}
	r.Add("flood/capacity-per-s", capacity, report.None)
	for _, f := range []struct {
		name  string
		ports int
	}{{"one-port", 1}, {"many-ports", 40_000}} {
		rates := map[*contestant][]float64{}
		var sent []float64
		if err := inTurn(o, "flood: "+f.name, 1, []*contestant{static, ours}, func(c *contestant) error {
			rate, flood, err := c.underFlood(capacity*floodTimes, f.ports)
			rates[c], sent = append(rates[c], rate), append(sent, flood)
			return err
		}); err != nil {
			return err
		}
		prefix := "flood/" + f.name
		r.Add(prefix+"/sent-x-capacity", measure.Median(sent)/capacity, report.AtLeast(0.9*floodTimes))
		r.Add(prefix+"/static/others-per-s", measure.Median(rates[static]), report.None)
		r.Add(prefix+"/postern/others-per-s", measure.Median(rates[ours]), report.None)
		r.Add(prefix+"/others-x-static", measure.MedianRatio(rates[ours], rates[static]), report.AtLeast(0.8))
		leaks, err := ours.packets("leaks")
		if err != nil {
			return err
		}
		r.Add(prefix+"/leaks", float64(leaks), report.AtMost(0))
	}
	return nil
}

// capacity is how many new connections a second the contestant decides.
func (c *contestant) capacity() (float64, error) {
	var rates []float64
	for range 3 {
		l, err := c.load(c.fresh(plan{workers: manyWorkers, lasts: floodRound}))
		if err != nil {
			return 0, err
		}
		c.sent += l.Connections + l.Failures
		rates = append(rates, l.rate())
	}
	return measure.Median(rates), nil
}

// underFlood gives the rate of connections of the client while the attacker sends,
// and how many packets a second the attacker sent.
func (c *contestant) underFlood(rate float64, ports int) (others, sent float64, err error) {
	cmd, err := child("flood", "-to", serverAddr.String(), "-from", attackerAddr.String(),
		"-rate", fmt.Sprint(int(rate)), "-ports", fmt.Sprint(ports), "-lasts", (floodLead + floodRound).String())
	if err != nil {
		return 0, 0, err
	}
	var out strings.Builder
	cmd.Stdout = &out
	if err := c.attacker.Start(cmd); err != nil {
		return 0, 0, err
	}
	time.Sleep(floodLead)
	l, err := c.load(known(plan{workers: manyWorkers, lasts: floodRound}))
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return 0, 0, err
	}
	return l.rate(), sent, json.Unmarshal([]byte(out.String()), &sent)
}

// countLeaks counts at the server what arrives of the attacker.
func (c *contestant) countLeaks() error {
	return c.run(c.server, "nft", "table inet leaks { counter arrived { }; chain c { type filter hook prerouting priority -400; ip saddr "+
		attackerAddr.String()+" counter name arrived; }; }")
}

var packetsText = regexp.MustCompile(`packets (\d+)`)

// packets is how many the server's table of this name has counted.
func (c *contestant) packets(table string) (n int, err error) {
	err = c.server.Do(func() error {
		out, err := exec.Command("nft", "list", "counter", "inet", table, "arrived").Output()
		if err != nil {
			return fmt.Errorf("nft list counter: %w", err)
		}
		m := packetsText.FindSubmatch(out)
		if m == nil {
			return fmt.Errorf("no counter in %s", out)
		}
		n, err = strconv.Atoi(string(m[1]))
		return err
	})
	return n, err
}

// floodMain sends SYNs at a rate and prints how many a second it really sent. With
// -fresh each is from another address, that many behind the first.
func floodMain(args []string) error {
	var (
		from, to     netip.Addr
		rate, ports  int
		first, fresh int
		lasts        time.Duration
	)
	f := flag.NewFlagSet("flood", flag.ExitOnError)
	f.TextVar(&to, "to", netip.Addr{}, "")
	f.TextVar(&from, "from", netip.Addr{}, "")
	f.IntVar(&rate, "rate", 1, "")
	f.IntVar(&ports, "ports", 1, "")
	f.IntVar(&first, "first", firstDenied, "")
	f.IntVar(&fresh, "fresh", -1, "")
	f.DurationVar(&lasts, "lasts", time.Second, "")
	f.Parse(args)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
		return err
	}
	type mmsghdr struct {
		hdr unix.Msghdr
		n   uint32
		_   [4]byte
	}
	const batch, size = 64, 40
	var (
		headers [batch]mmsghdr
		iovecs  [batch]unix.Iovec
		packets [batch][size]byte
	)
	for i := range headers {
		packets[i] = syn(from, to)
		iovecs[i].Base = &packets[i][0]
		iovecs[i].SetLen(size)
		headers[i].hdr.Iov = &iovecs[i]
		headers[i].hdr.SetIovlen(1)
	}
	sent, start := 0, time.Now()
	for {
		elapsed := time.Since(start)
		if elapsed >= lasts {
			return json.NewEncoder(os.Stdout).Encode(float64(sent) / elapsed.Seconds())
		}
		due := int(float64(rate)*elapsed.Seconds()) - sent
		if due <= 0 {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		due = min(due, batch)
		for i := range due {
			n := sent + i
			if fresh >= 0 { // from an address that has sent nothing yet
				n += fresh
				a := behind(from, n%(1<<20))
				copy(packets[i][12:], a[:])
				number(&packets[i], uint16(40_000+n>>20), uint16(first+n%ports))
				continue
			}
			number(&packets[i], uint16(1024+n%60_000), uint16(first+n/7%ports))
		}
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), uintptr(due), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		sent += int(n)
	}
}

// syn is an IPv4 TCP SYN without ports and checksum.
func syn(from, to netip.Addr) (b [40]byte) {
	b[0], b[3], b[8], b[9] = 0x45, 40, 64, unix.IPPROTO_TCP
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	b[32], b[33] = 0x50, 0x02
	binary.BigEndian.PutUint16(b[34:], 1024)
	return b
}

// number puts ports in, and the checksum, without which conntrack calls the packet
// invalid (RFC 9293 section 3.1).
func number(b *[40]byte, from, to uint16) {
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], to)
	b[36], b[37] = 0, 0
	sum := uint32(unix.IPPROTO_TCP + 20)
	for i := 12; i < 40; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[36:], ^uint16(sum))
}
