package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listenAddress is where the daemon listens in these tests, in the node's network namespace.
const listenAddress = "127.0.0.1:9797"

// get asks the daemon over TCP; code 0 if nobody listens.
func (b *bench) get(path string) (code int, text string) {
	b.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return b.Node.DialTCP(netip.MustParseAddrPort(listenAddress), 5*time.Second)
		},
	}}
	r, err := c.Get("http://" + listenAddress + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// metric reads one metric, by its name and labels; -1 if it is not there.
func (b *bench) metric(name string) float64 {
	b.Helper()
	code, text := b.get("/metrics")
	if code != 200 {
		b.Fatalf("metrics: %d: %s", code, text)
	}
	m := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(name) + " (.*)$").FindStringSubmatch(text)
	if m == nil {
		return -1
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// TestMetrics: what packets meet shows in metrics, and health follows policy.
func TestMetrics(t *testing.T) {
	b := setup(t, examples)
	b.serve(5432)
	b.writeOnly("bad.yaml", "kind: NetworkPolicy\napiVersion: projectcalico.org/v3\nmetadata: {name: bad, namespace: prod-engineering}\nspec: {selector: 'a =='}\n")
	b.start("--metrics-listen", listenAddress, "--health-listen", listenAddress)
	for _, path := range []string{"/livez", "/readyz", "/startupz"} {
		if code, text := b.get(path); code != 200 {
			t.Errorf("%s: %d: %s", path, code, text)
		}
	}
	to := at(b.pods["prod-engineering/db"], false, 5432)
	if err := b.pods["prod-engineering/api"].Exchange("tcp", to, []byte("x"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := b.pods["prod-engineering/reports"].Exchange("udp", to, []byte("x"), 200*time.Millisecond); err == nil {
		t.Fatal("a denied flow passed")
	}
	for name, least := range map[string]float64{
		"postern_enforcing": 1,
		`postern_decisions_total{reason="rule",verdict="allow"}`:                1,
		`postern_dropped_packets_total{cause="policy"}`:                         1,
		`postern_kernel_packets_total{counter="queued"}`:                        2,
		`postern_queue_bound{queue="` + strconv.Itoa(queue) + `"}`:              1,
		"postern_verdict_duration_seconds_count":                                2,
		`postern_unusable_objects{kind="NetworkPolicy"}`:                        1,
		"postern_policy_apply_duration_seconds_count":                           1,
		`postern_objects{kind="Pod"}`:                                           5,
		`postern_config_reloads_total{result="invalid"}`:                        0,
		`postern_dropped_packets_total{cause="queue-full"}`:                     0,
		"process_resident_memory_bytes":                                         1,
		`postern_queue_send_retries_total{queue="` + strconv.Itoa(queue) + `"}`: 0,
	} {
		if n := b.metric(name); n < least {
			t.Errorf("%s is %v, want %v or more", name, n, least)
		}
	}
	if _, text := b.get("/metrics"); strings.Contains(text, "prod-engineering") || strings.Contains(text, to.Addr().String()) {
		t.Error("metrics name a namespace or an address")
	}
	// A change is timed from its arrival.
	was := b.metric("postern_time_to_enforce_seconds_count")
	b.write("more.yaml", "kind: Namespace\napiVersion: v1\nmetadata: {name: more}\n")
	if n := b.metric("postern_time_to_enforce_seconds_count"); n <= was {
		t.Errorf("%v changes were timed, after %v", n, was)
	}
}

// TestNotReady: before a first state there is something to ask, and it says no.
func TestNotReady(t *testing.T) {
	b := setup(t, examples)
	b.writeOnly("serviceaccounts.yaml", replaced(t, "serviceaccounts.yaml", "{app: reports}", "{app: web-frontend}"))
	b.launch("--metrics-listen", listenAddress, "--health-listen", listenAddress, "--assertions", promises(t))
	eventually(t, "the daemon listens", func() bool { code, _ := b.get("/livez"); return code == 200 })
	for _, path := range []string{"/readyz", "/startupz"} {
		if code, text := b.get(path); code != 503 || text != "nothing is in force yet\n" {
			t.Errorf("%s: %d: %s", path, code, text)
		}
	}
	if n := b.metric("postern_enforcing"); n != 0 {
		t.Errorf("enforcing is %v", n)
	}
	eventually(t, "the refusal is counted", func() bool { return b.metric("postern_policy_refused_total") == 1 })
}
