package e2e

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/postern-project/postern/test/lab"
)

// Service addresses of these tests; port 80 leads to db's 5432.
var (
	vip4 = netip.MustParseAddrPort("10.96.0.10:80")
	vip6 = netip.MustParseAddrPort("[fd00:96::10]:80")
)

func vip(six bool) netip.AddrPort {
	if six {
		return vip6
	}
	return vip4
}

// shell runs a script on the node.
func (b *bench) shell(script string) {
	b.Helper()
	var out []byte
	if err := b.Node.Do(func() (err error) {
		cmd := exec.Command("sh", "-e")
		cmd.Stdin = strings.NewReader(script)
		out, err = cmd.CombinedOutput()
		return err
	}); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
}

// proxyModes put in what kube-proxy does for one service with one endpoint: destination
// NAT where packets arrive, and source NAT of what its mark 0x4000 says must come back this
// way, such as a pod that reaches itself by its service.
var proxyModes = map[string]string{
	"nftables": `
for f in ip ip6; do
if [ $f = ip ]; then type=ipv4_addr vip=10.96.0.10 db=10.244.0.10 to=10.244.0.10:5432; else type=ipv6_addr vip=fd00:96::10 db=fd00:244::10 to=[fd00:244::10]:5432; fi
nft -f - <<END
table $f kube-proxy {
	map service-ips { type $type . inet_proto . inet_service : verdict; }
	chain endpoint { $f saddr $db jump mark-for-masquerade; meta l4proto tcp dnat to $to; }
	chain service { numgen random mod 1 vmap { 0 : goto endpoint }; }
	chain mark-for-masquerade { mark set mark or 0x4000; }
	chain services { $f daddr . meta l4proto . th dport vmap { $vip . tcp . 80 : goto service }; }
	chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
	chain nat-output { type nat hook output priority -100; jump services; }
	chain nat-postrouting { type nat hook postrouting priority srcnat; meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
}
END
done`,
	"iptables": `
for i in iptables ip6tables; do
if [ $i = iptables ]; then vip=10.96.0.10 db=10.244.0.10 to=10.244.0.10:5432; else vip=fd00:96::10 db=fd00:244::10 to=[fd00:244::10]:5432; fi
$i-restore --noflush <<END
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SEP-A - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d $vip -p tcp -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SVC-A -m statistic --mode random --probability 1 -j KUBE-SEP-A
-A KUBE-SEP-A -s $db -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination $to
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
END
done`,
}

// TestServiceAddresses: behind a service's address a flow is judged by its real ends, with
// the rules of either of kube-proxy's modes: allowed, denied, of a pod that reaches itself,
// and from the host.
func TestServiceAddresses(t *testing.T) {
	t.Parallel()
	for mode, script := range proxyModes {
		t.Run(mode, func(t *testing.T) {
			b := setup(t, examples)
			b.serve(5432)
			b.shell("ip route add 10.96.0.0/16 dev node0; ip route add fd00:96::/64 dev node0\n" + script)
			b.start()
			bothFamilies(t, func(t *testing.T, six bool) {
				b.T = t
				b.servicesWork(six, mode)
			})
		})
	}
}

func (b *bench) servicesWork(six bool, mode string) {
	b.Helper()
	received := b.sniff(b.pods[db])
	answers := func(from string, want bool) {
		b.Helper()
		wait := soon
		if want {
			wait = patience
		}
		if err := b.pods[from].Exchange("tcp", vip(six), []byte("hello"), wait); (err == nil) != want {
			b.Errorf("%s -> service: %v, want an answer: %v", from, err, want)
		}
	}
	answers(api, true)
	answers(reports, false)
	// A pod that reaches itself by its service is nobody special.
	answers(db, false)
	b.edit("serviceaccounts.yaml", "{app: storage}", "{app: web-frontend, was: storage}")
	answers(db, true)
	b.edit("serviceaccounts.yaml", "{app: web-frontend, was: storage}", "{app: storage}")
	if n := received.Count(lab.From(at(b.pods[reports], six, 0).Addr())); n != 0 {
		b.Errorf("db received %d packets of a denied flow", n)
	}
	if err := b.Node.Exchange("tcp", vip(six), []byte("hello"), patience); err != nil {
		b.Errorf("host -> service: %v", err)
	}
	found := false
	for _, f := range b.flows("--pod", api, "--port", "80") {
		if f.Src.Addr.Is6() == six {
			found = true
			if f.Dst.Pod != db || f.Dst.Port != 5432 || f.Verdict != "allow" || f.Translated == nil || f.Translated.Original.Dst != vip(six) {
				b.Errorf("listed as %+v", f)
			}
		}
	}
	if !found {
		b.Errorf("%s: a flow to the service is not listed by the service's port", mode)
	}
}

// TestMasquerade: a flow whose source the host translates is judged by the pod that
// began it, and its answers find their way back.
func TestMasquerade(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	outside, err := b.AddPod("outside", netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := outside.Serve(443)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b.nft("add table inet masq; add chain inet masq post { type nat hook postrouting priority srcnat; };" +
		" add rule inet masq post ip daddr 203.0.113.0/24 masquerade; add rule inet masq post ip6 daddr 2001:db8::/32 masquerade")
	b.start()
	b.write("policy-0-out.yaml", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: prod-engineering}
spec: {order: 1, selector: 'app == "api"', types: [Egress], egress: [{action: Allow}]}
`)
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		received := b.sniff(outside)
		to := at(outside, six, 443)
		for from, want := range map[string]bool{api: true, "prod-engineering/intern-1": false} { // interns may go nowhere
			wait := soon
			if want {
				wait = patience
			}
			for _, network := range []string{"tcp", "udp"} {
				if err := b.pods[from].Exchange(network, to, []byte("hello"), wait); (err == nil) != want {
					t.Errorf("%s %s: %v, want an answer: %v", from, network, err, want)
				}
			}
			if n := received.Count(lab.From(at(b.pods[from], six, 0).Addr())); n != 0 {
				t.Errorf("%d packets with the pod's own address arrived", n)
			}
		}
		n := 0
		for _, f := range b.flows("--port", "443") {
			if f.Dst.Addr != to.Addr() {
				continue
			}
			n++
			if f.Src.Pod != api || f.Verdict != "allow" || f.Translated == nil || !f.Translated.Source || f.Translated.Reply.Dst.Addr() == f.Src.Addr {
				t.Errorf("listed as %+v", f)
			}
		}
		if n == 0 {
			t.Error("api's flows are not listed")
		}
	})
}
