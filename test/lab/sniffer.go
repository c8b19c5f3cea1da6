package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"net/netip"
)

// Packet is one packet that a host received on eth0.
type Packet struct {
	Src, Dst         netip.Addr
	Proto            layers.IPProtocol
	SrcPort, DstPort uint16
	// Opening is true for a TCP SYN without ACK.
	Opening bool
	Payload []byte // of the transport layer, or of the network layer where there is none
}

// drain is how long Stop reads what had arrived before it, where more comes all the time.
const drain = time.Second

// Sniffer records what arrives at a host, before any of its own rules see it.
type Sniffer struct {
	fd   int
	stop chan struct{}
	last time.Time // once stop is closed: when to give up what still comes
	done sync.WaitGroup

	mu      sync.Mutex
	packets []Packet
	err     error
}

// Sniff starts to record what arrives on the host's eth0. Stop ends it.
func (h *Host) Sniff() (*Sniffer, error) {
	s := &Sniffer{stop: make(chan struct{})}
	err := h.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
		return errors.Join(
			unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		)
	})
	if err != nil {
		return nil, fmt.Errorf("lab: sniff at %s: %w", h.Name, err)
	}
	s.done.Go(s.run)
	return s, nil
}

// Stop ends the recording and returns an error if it broke off before.
func (s *Sniffer) Stop() error {
	s.last = time.Now().Add(drain)
	close(s.stop)
	s.done.Wait()
	unix.Close(s.fd)
	return s.err
}

// Packets returns what has arrived so far, in order.
func (s *Sniffer) Packets() []Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Packet(nil), s.packets...)
}

// Count tells how many packets that satisfy f have arrived.
func (s *Sniffer) Count(f func(Packet) bool) (n int) {
	for _, p := range s.Packets() {
		if f(p) {
			n++
		}
	}
	return n
}

// From accepts packets from an address.
func From(a netip.Addr) func(Packet) bool {
	return func(p Packet) bool { return p.Src == a }
}

func (s *Sniffer) run() {
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		switch {
		case err == nil:
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
				s.record(buf[:n])
			}
			select {
			case <-s.stop: // packets may come for ever
				if time.Now().After(s.last) {
					return
				}
			default:
			}
		case errors.Is(err, unix.EAGAIN):
			select {
			case <-s.stop: // only when nothing waits any more
				return
			default:
			}
		case errors.Is(err, unix.EINTR):
		default:
			s.err = err
			return
		}
	}
}

func (s *Sniffer) record(b []byte) {
	if p, ok := parse(b); ok {
		s.mu.Lock()
		s.packets = append(s.packets, p)
		s.mu.Unlock()
	}
}

func parse(b []byte) (p Packet, ok bool) {
	if len(b) == 0 {
		return p, false
	}
	first := gopacket.LayerType(layers.LayerTypeIPv4)
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	pk := gopacket.NewPacket(append([]byte(nil), b...), first, gopacket.NoCopy)
	switch ip := pk.NetworkLayer().(type) {
	case *layers.IPv4:
		p.Src, _ = netip.AddrFromSlice(ip.SrcIP.To4())
		p.Dst, _ = netip.AddrFromSlice(ip.DstIP.To4())
		p.Proto, p.Payload = ip.Protocol, ip.Payload
	case *layers.IPv6:
		p.Src, _ = netip.AddrFromSlice(ip.SrcIP)
		p.Dst, _ = netip.AddrFromSlice(ip.DstIP)
		p.Proto, p.Payload = ip.NextHeader, ip.Payload
	default:
		return p, false // ARP and the like
	}
	switch t := pk.TransportLayer().(type) {
	case *layers.TCP:
		p.SrcPort, p.DstPort, p.Opening, p.Payload = uint16(t.SrcPort), uint16(t.DstPort), t.SYN && !t.ACK, t.Payload
	case *layers.UDP:
		p.SrcPort, p.DstPort, p.Payload = uint16(t.SrcPort), uint16(t.DstPort), t.Payload
	case *layers.SCTP:
		p.SrcPort, p.DstPort, p.Payload = uint16(t.SrcPort), uint16(t.DstPort), t.Payload
	}
	return p, true
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
