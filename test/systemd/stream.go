package systemd

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/postern-project/postern/test/lab"
)

// Stream sends datagrams from one pod to another at a rate. Each is of a flow of its own,
// to a port of its own, so that the kernel knows the answer to none: postern is asked
// about every single one. They are numbered, and IPv4 and IPv6 take turns.
type Stream struct {
	from, to *lab.Host
	sockets  [2]*net.UDPConn
	first    int // the first datagram goes to the port of this number
	stop     chan struct{}
	done     sync.WaitGroup
	sent     int
	err      error
}

// The ports, without that of VXLAN, to which pods may not send.
const (
	firstPort = 5000
	ports     = 60000
)

// StartStream begins to send perSecond datagrams a second. Ports below first, counted from
// 0, are left to streams before it.
func StartStream(from, to *lab.Host, first, perSecond int) (*Stream, error) {
	s := &Stream{from: from, to: to, first: first, stop: make(chan struct{})}
	err := from.Do(func() (err error) {
		for i, network := range []string{"udp4", "udp6"} {
			if s.sockets[i], err = net.ListenUDP(network, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.done.Go(func() { s.run(perSecond) })
	return s, nil
}

func (s *Stream) run(perSecond int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	to := [2]netip.Addr{s.to.Addr4(), s.to.Addr6()}
	due := 0.0
	for last := time.Now(); ; {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			// What a busy machine kept from being sent is made up for in part only: a
			// burst would meet the guard.
			due = min(due+now.Sub(last).Seconds()*float64(perSecond), 20)
			last = now
		}
		for ; due >= 1; due-- {
			i := s.sent % 2
			at := netip.AddrPortFrom(to[i], uint16(firstPort+(s.first+s.sent/2)%ports))
			if _, s.err = s.sockets[i].WriteToUDPAddrPort(binary.BigEndian.AppendUint64(nil, uint64(s.sent)), at); s.err != nil {
				return
			}
			s.sent++
		}
	}
}

// End stops the stream and tells how many datagrams it sent.
func (s *Stream) End() (int, error) {
	close(s.stop)
	s.done.Wait()
	for _, c := range s.sockets {
		c.Close()
	}
	return s.sent, s.err
}

// Arrived counts the datagrams of a stream that a sniffer at its end has seen, and those
// seen more than once.
func (s *Stream) Arrived(at *lab.Sniffer) (n, again int) {
	ports := [2]uint16{}
	for i, c := range s.sockets {
		ports[i] = c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	seen := map[uint64]bool{}
	for _, p := range at.Packets() {
		mine := p.Src == s.from.Addr4() && p.SrcPort == ports[0] || p.Src == s.from.Addr6() && p.SrcPort == ports[1]
		if !mine || len(p.Payload) != 8 {
			continue
		}
		number := binary.BigEndian.Uint64(p.Payload)
		if seen[number] {
			again++
		}
		seen[number] = true
	}
	return len(seen), again
}
