package lab

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestSniffStops: recording ends also where packets come without a pause.
func TestSniffStops(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var pods []*Host
	for i, name := range []string{"sa", "sb"} {
		p, err := l.AddPod(name, netip.AddrFrom4([4]byte{10, 244, 0, byte(20 + i)}), netip.MustParseAddr("fd00:244::2"+string(rune('0'+i))))
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, p)
	}
	sniff, err := pods[0].Sniff()
	if err != nil {
		t.Fatal(err)
	}
	end, sent := make(chan struct{}), make(chan error, 1)
	go func() {
		sent <- pods[1].Do(func() error {
			c, err := net.Dial("udp", netip.AddrPortFrom(pods[0].Addr4(), 9).String()) // discard (RFC 863)
			if err != nil {
				return err
			}
			defer c.Close()
			for {
				select {
				case <-end:
					return nil
				case <-time.After(50 * time.Microsecond):
					c.Write([]byte("again")) // nobody listens, which the next write is told
				}
			}
		})
	}()
	defer func() {
		close(end)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); sniff.Count(From(pods[1].Addr4())) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing arrives")
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- sniff.Stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it goes on")
	}
}
