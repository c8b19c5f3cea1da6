package e2e

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/test/kubernetes"
	"github.com/postern-project/postern/test/lab"
)

// dbService is what the cluster says of a service that db's pod serves, at addresses of the
// cluster's own range.
func dbService(db *lab.Host) string {
	text := `
apiVersion: v1
kind: Service
metadata: {name: db, namespace: prod-engineering}
spec:
  clusterIP: ` + vip4.Addr().String() + `
  clusterIPs: [` + vip4.Addr().String() + `, "` + vip6.Addr().String() + `"]
  ipFamilyPolicy: RequireDualStack
  ports: [{name: db, port: 80, targetPort: 5432}]
`
	for family, addr := range map[string]netip.Addr{"IPv4": db.Addr4(), "IPv6": db.Addr6()} {
		text += fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-%s, namespace: prod-engineering, labels: {kubernetes.io/service-name: db}}
addressType: %s
endpoints: [{addresses: ["%s"], nodeName: n1, conditions: {ready: true}}]
ports: [{name: db, port: 5432}]
`, strings.ToLower(family), family, addr)
	}
	return text
}

// TestKubeProxy: kube-proxy itself, in iptables mode, follows the same API server as postern.
// Behind the service's address a flow is judged by the service accounts at its real ends, and
// again when one of them changes. (In nftables mode it runs in test/node.)
func TestKubeProxy(t *testing.T) {
	t.Parallel()
	c := setupCluster(t)
	c.serve(5432)
	c.apply(`
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: ` + lab.NodeAddr4.String() + `}]}
` + "---\n" + strings.TrimPrefix(dbService(c.pods[db]), "\n"))
	c.shell("ip route add 10.96.0.0/16 dev node0; ip route add fd00:96::/64 dev node0")
	c.kubeProxy("iptables")
	eventuallyFor(t, time.Minute, "kube-proxy has written its rules", func() bool {
		return strings.Contains(c.output(c.Node, "iptables-save", "-t", "nat"), "--to-destination "+at(c.pods[db], false, 5432).String()) &&
			strings.Contains(c.output(c.Node, "ip6tables-save", "-t", "nat"), "--to-destination "+at(c.pods[db], true, 5432).String())
	})
	c.run()
	received := c.sniff(c.pods[db])
	answers := func(from string, six, want bool) {
		t.Helper()
		wait := soon
		if want {
			wait = patience
		}
		if err := c.pods[from].Exchange("tcp", vip(six), []byte("hello"), wait); (err == nil) != want {
			t.Errorf("%s -> service (ipv6 %v): %v, want an answer: %v\n%s", from, six, err, want, c.daemon.Text())
		}
	}
	for _, six := range []bool{false, true} {
		answers(api, six, true)
		answers(reports, six, false)
		if n := received.Count(lab.From(at(c.pods[reports], six, 0).Addr())); n != 0 {
			t.Errorf("db received %d packets of a denied flow", n)
		}
		if err := c.Node.Exchange("tcp", vip(six), []byte("hello"), patience); err != nil {
			t.Errorf("host -> service: %v", err)
		}
	}
	c.relabel("reports-sa", "web-frontend")
	c.eventually(reports, db, true)
	for _, six := range []bool{false, true} {
		answers(reports, six, true)
	}
	c.relabel("reports-sa", "reports")
	c.eventually(reports, db, false)
	for _, six := range []bool{false, true} {
		answers(reports, six, false)
		answers(api, six, true)
	}
}

// kubeProxy starts kube-proxy on the node.
func (c *cluster) kubeProxy(mode string) {
	c.Helper()
	program, err := kubernetes.Program("kube-proxy")
	if err != nil {
		c.Fatal(err)
	}
	kubeconfig, err := c.server.Kubeconfig("")
	if err != nil {
		c.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(program, "--kubeconfig", kubeconfig, "--hostname-override", "n1", "--proxy-mode", mode,
		"--cluster-cidr", "10.244.0.0/16,fd00:244::/32", "--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0", "--conntrack-tcp-timeout-close-wait", "0")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := c.Node.Start(cmd); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if c.Failed() {
			c.Logf("kube-proxy:\n%s", log.String())
		}
	})
}
