package lab

import (
	"net/netip"
	"testing"
	"time"
)

// TestReach shows that without any rules every host reaches every other, over both
// families, and that the sniffer sees it: the ground that other tests stand on.
func TestReach(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	var pods []*Host
	for i, name := range []string{"pa", "pb"} {
		p, err := l.AddPod(name, netip.AddrFrom4([4]byte{10, 244, 0, byte(10 + i)}), netip.MustParseAddr("fd00:244::1"+string(rune('0'+i))))
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p)
	}
	hosts := append(pods, l.Node)
	for _, h := range hosts {
		s, err := h.Serve(80)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
	}
	sniff, err := pods[0].Sniff()
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range hosts {
		for _, to := range hosts {
			for _, a := range to.Addrs {
				for _, network := range []string{"tcp", "udp"} {
					if err := from.Exchange(network, netip.AddrPortFrom(a, 80), []byte("hello"), 2*time.Second); err != nil {
						t.Errorf("%s -> %s %s: %v", from.Name, to.Name, network, err)
					}
				}
			}
		}
	}
	if err := sniff.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, a := range pods[1].Addrs {
		if n := sniff.Count(func(p Packet) bool { return p.Src == a && p.DstPort == 80 && p.Opening }); n != 1 {
			t.Errorf("the sniffer saw %d connections from %s, want 1", n, a)
		}
	}
}
