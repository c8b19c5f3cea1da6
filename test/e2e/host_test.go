package e2e

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/postern-project/postern/test/lab"
)

// TestEndpointToHost: what becomes of flows of pods to their own host once egress
// policy has nothing against them. The host reaches its pods all the same.
func TestEndpointToHost(t *testing.T) {
	t.Parallel()
	for action, check := range map[string]func(error) bool{
		"drop":   func(err error) bool { return err != nil && !errors.Is(err, syscall.ECONNREFUSED) },
		"reject": func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) },
		"accept": func(err error) bool { return err == nil },
	} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			b := setup(t, examples)
			b.serve(5432)
			b.start("--endpoint-to-host", action)
			bothFamilies(t, func(t *testing.T, six bool) {
				for _, name := range []string{"prod-engineering/db", "prod-engineering/api"} { // one is isolated, one is not
					if err := b.pods[name].Exchange("tcp", at(b.Node, six, 5432), []byte("hello"), impatience); !check(err) {
						t.Errorf("%s -> host: %v", name, err)
					}
					if err := b.Node.Exchange("tcp", at(b.pods[name], six, 5432), []byte("probe"), patience); err != nil {
						t.Errorf("host -> %s: %v", name, err)
					}
				}
			})
		})
	}
}

// TestTunnels: a pod that may reach another may not reach it with a tunnel's packet,
// in which it could claim to be anybody.
func TestTunnels(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		args    []string
		arrives map[string]bool
	}{
		{"by default", nil, map[string]bool{"vxlan": false, "ipip": false, "udp": true}},
		{"another port", []string{"--vxlan-port", "8472"}, map[string]bool{"vxlan": true, "ipip": false, "udp": true}},
		{"allowed", []string{"--allow-tunnels"}, map[string]bool{"vxlan": true, "ipip": true, "udp": true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, examples)
			b.start(tc.args...)
			bothFamilies(t, func(t *testing.T, six bool) {
				api, db := b.pods["prod-engineering/api"], b.pods["prod-engineering/db"]
				received := b.sniff(db)
				src, dst := at(api, six, 4001), at(db, six, 0).Addr()
				inner := udp(at(b.pods["prod-engineering/web"], false, 1), at(db, false, 1), []byte("forged"))
				for _, packet := range [][]byte{
					udp(src, netip.AddrPortFrom(dst, 4789), []byte("vxlan")),
					lab.Build(lab.IP(src.Addr(), dst, layers.IPProtocolIPv4), gopacket.Payload(inner)),
					udp(src, netip.AddrPortFrom(dst, 4790), []byte("udp")),
				} {
					if err := api.Send(packet); err != nil {
						t.Fatal(err)
					}
				}
				is := map[string]func(lab.Packet) bool{
					"vxlan": func(p lab.Packet) bool { return p.DstPort == 4789 },
					"ipip":  func(p lab.Packet) bool { return p.Proto == layers.IPProtocolIPv4 },
					"udp":   func(p lab.Packet) bool { return p.DstPort == 4790 },
				}
				eventually(t, "the plain datagram arrives", func() bool { return received.Count(is["udp"]) > 0 })
				time.Sleep(50 * time.Millisecond)
				for name, want := range tc.arrives {
					if got := received.Count(is[name]) > 0; got != want {
						t.Errorf("%s arrived: %v, want %v", name, got, want)
					}
				}
			})
		})
	}
}
