package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Server answers on a host until Close: every byte over TCP, and every datagram
// over UDP, goes back to where it came from.
type Server struct {
	closers []io.Closer
	done    sync.WaitGroup
}

// Serve listens on TCP and UDP port of each of the host's addresses.
func (h *Host) Serve(ports ...uint16) (*Server, error) {
	s := &Server{}
	err := h.Do(func() error {
		for _, a := range h.Addrs {
			for _, port := range ports {
				at := netip.AddrPortFrom(a, port)
				l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
				if err != nil {
					return err
				}
				s.closers = append(s.closers, l)
				u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
				if err != nil {
					return err
				}
				s.closers = append(s.closers, u)
				s.done.Go(func() { serveTCP(l) })
				s.done.Go(func() { serveUDP(u) })
			}
		}
		return nil
	})
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("lab: serve at %s: %w", h.Name, err)
	}
	return s, nil
}

// Close stops listening. Connections that are open end when their clients close.
func (s *Server) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.done.Wait()
	return errors.Join(errs...)
}

func serveTCP(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			io.Copy(c, c)
		}()
	}
}

func serveUDP(c *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(buf[:n], from)
	}
}

// DialTCP connects from the host.
func (h *Host) DialTCP(to netip.AddrPort, timeout time.Duration) (c net.Conn, err error) {
	err = h.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", to.String(), timeout)
		return err
	})
	return c, err
}

// Exchange sends payload from the host over "tcp" or "udp" and waits for its echo.
func (h *Host) Exchange(network string, to netip.AddrPort, payload []byte, timeout time.Duration) error {
	var c net.Conn
	if err := h.Do(func() (err error) {
		c, err = net.DialTimeout(network, to.String(), timeout)
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	return Echo(c, payload, timeout)
}

// Echo sends payload over an open connection and waits until it has come back.
func Echo(c net.Conn, payload []byte, timeout time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := c.Write(payload); err != nil {
		return err
	}
	back := make([]byte, len(payload))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != string(payload) {
		return fmt.Errorf("sent %d bytes, and others came back", len(payload))
	}
	return nil
}

// Send writes a packet, IP header included, to the network as the host. Nothing
// in it is checked. Lengths and IPv4 checksums are the caller's.
func (h *Host) Send(packet []byte) error {
	if len(packet) == 0 {
		return errors.New("lab: send: empty packet")
	}
	return h.Do(func() error {
		proto := uint16(unix.ETH_P_IP)
		if packet[0]>>4 == 6 {
			proto = unix.ETH_P_IPV6
		}
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: l.Index, Halen: 6}
		copy(to.Addr[:], h.gateway)
		return unix.Sendto(fd, packet, 0, to)
	})
}

// Build serialises layers with lengths and checksums filled in.
func Build(ls ...gopacket.SerializableLayer) []byte {
	for i := 1; i < len(ls); i++ {
		n, ok := ls[i-1].(gopacket.NetworkLayer)
		if !ok {
			continue
		}
		switch t := ls[i].(type) {
		case *layers.TCP:
			t.SetNetworkLayerForChecksum(n)
		case *layers.UDP:
			t.SetNetworkLayerForChecksum(n)
		case *layers.ICMPv6:
			t.SetNetworkLayerForChecksum(n)
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		panic(err) // a mistake in the test
	}
	return append([]byte(nil), b.Bytes()...)
}

// IP begins a packet between two addresses.
func IP(src, dst netip.Addr, proto layers.IPProtocol) gopacket.SerializableLayer {
	if src.Is4() {
		return &layers.IPv4{Version: 4, TTL: 64, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), Protocol: proto}
	}
	return &layers.IPv6{Version: 6, HopLimit: 64, SrcIP: src.AsSlice(), DstIP: dst.AsSlice(), NextHeader: proto}
}

// Start starts a prepared program in the host's namespace.
func (h *Host) Start(cmd *exec.Cmd) error {
	return h.Do(cmd.Start)
}
