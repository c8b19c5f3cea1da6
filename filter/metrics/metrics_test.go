package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-project/postern/filter/control"
)

// full is a Status with something everywhere.
func full() control.Status {
	at := time.Unix(1700000000, 500e6)
	return control.Status{
		Enforcing: true, NodeMissing: true, Synced: true, Since: at, Applied: at, Saved: at, Generation: 7, Repairs: 20, Pods: 3, Policies: 2,
		Hosted: 2, ProtectedIngress: 1, ProtectedEgress: 2, Kept: 4, Degraded: []string{"x", "y"},
		Objects: map[string]int{"Pod": 3}, UnusableKinds: map[string]int{"NetworkPolicy": 5}, UnusableTotal: 5,
		Kinds: []control.Kind{{Resource: "pods./v1", State: "live", Contact: at, Lists: 2, Errors: 1}, {Resource: "nodes./v1", State: "refused"}},
		Packets: control.Packets{
			Decided:     []control.Decided{{Verdict: "allow", Reason: "rule", Count: 11}, {Verdict: "deny", Reason: "end-of-tier", Count: 12}},
			Undecodable: map[string]uint64{"truncated": 13},
			Dropped:     map[string]uint64{"policy": 14, "queue-full": 0}, FailedOpen: map[string]uint64{"spoofed": 15},
			Kernel: map[string]uint64{"queued": 16}, Log: control.FlowLog{Lines: 1, Repeated: 2, SampledOut: 3, Suppressed: 4, Lost: 17},
			Queues: []control.Queue{{Number: 100, Bound: true, Waiting: 1, Full: 2, Unread: 3, Batches: 4, Malformed: 5, Refused: 6, Retries: 7}},
			Holds:  control.Holds{Now: 1, Held: 6, Decided: 2, Expired: 3, Refused: 4},
			Answers: control.Latency{
				Bounds: []float64{1e-6, 2e-6}, Within: []uint64{5, 3, 1}, Sum: 0.25,
			},
		},
		Requests: control.Requests{
			Decided: []control.Decided{{Verdict: "deny", Reason: "plaintext", Count: 18}}, Faults: 19,
			Answers: control.Latency{Bounds: []float64{1e-6}, Within: []uint64{1, 1}, Sum: 1},
		},
	}
}

// TestNames: names, units and help texts follow Prometheus's rules.
func TestNames(t *testing.T) {
	problems, err := testutil.GatherAndLint(New(Build{}, full).registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func read(t *testing.T, m *Metrics) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, m.Handler())
	code, text := get(t, "http://"+l.Addr().String()+"/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	return text
}

func serve(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func get(t *testing.T, url string) (code int, text string) {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// TestValues: every number of a Status comes out under its name.
func TestValues(t *testing.T) {
	m := New(Build{Version: "1.2.3", Revision: "abc", Go: "go1"}, full)
	m.Applied(3*time.Millisecond, -1)
	m.Applied(5*time.Millisecond, 2*time.Second)
	m.Failed()
	m.Refused()
	m.Refused()
	m.Reloaded(true)
	m.Reloaded(false)
	m.Reloaded(false)
	text := read(t, m)
	for _, want := range []string{
		`postern_build_info{goversion="go1",revision="abc",version="1.2.3"} 1`,
		"postern_enforcing 1", "postern_policy_generation 7", "postern_policy_applied_timestamp_seconds 1.7000000005e+09", "postern_degraded 2",
		"postern_pods 3", "postern_policies 2", "postern_hosted_endpoints 2",
		`postern_protected_endpoints{direction="ingress"} 1`, `postern_protected_endpoints{direction="egress"} 2`,
		`postern_objects{kind="Pod"} 3`, `postern_unusable_objects{kind="NetworkPolicy"} 5`, "postern_kept_objects 4", "postern_node_missing 1",
		"postern_source_synced 1", "postern_saved_state 1",
		`postern_source_live{resource="pods./v1"} 1`, `postern_source_live{resource="nodes./v1"} 0`,
		`postern_source_contact_timestamp_seconds{resource="pods./v1"} 1.7000000005e+09`,
		`postern_source_lists_total{resource="pods./v1"} 2`, `postern_source_errors_total{resource="pods./v1"} 1`,
		`postern_decisions_total{reason="rule",verdict="allow"} 11`, `postern_decisions_total{reason="end-of-tier",verdict="deny"} 12`,
		`postern_undecodable_packets_total{cause="truncated"} 13`,
		`postern_dropped_packets_total{cause="policy"} 14`, `postern_dropped_packets_total{cause="queue-full"} 0`,
		`postern_failed_open_packets_total{cause="spoofed"} 15`,
		`postern_kernel_packets_total{counter="queued"} 16`, "postern_kernel_readable 1", `postern_flow_log_records_total{outcome="lost"} 17`, `postern_flow_log_records_total{outcome="sampled-out"} 3`, "postern_table_repairs_total 20",
		`postern_queue_bound{queue="100"} 1`, `postern_queue_waiting_packets{queue="100"} 1`, `postern_queue_full_packets_total{queue="100"} 2`,
		`postern_queue_unread_packets_total{queue="100"} 3`, `postern_queue_batches_total{queue="100"} 4`,
		`postern_queue_malformed_messages_total{queue="100"} 5`, `postern_queue_refused_verdicts_total{queue="100"} 6`, `postern_queue_send_retries_total{queue="100"} 7`,
		"postern_held_packets 1", `postern_holds_total{outcome="decided"} 2`, `postern_holds_total{outcome="expired"} 3`, `postern_holds_total{outcome="refused"} 4`,
		`postern_verdict_duration_seconds_bucket{le="1e-06"} 5`, `postern_verdict_duration_seconds_bucket{le="2e-06"} 8`,
		`postern_verdict_duration_seconds_bucket{le="+Inf"} 9`, "postern_verdict_duration_seconds_sum 0.25",
		`postern_ext_authz_requests_total{reason="plaintext",verdict="deny"} 18`, "postern_ext_authz_faults_total 19", "postern_ext_authz_duration_seconds_count 2",
		"postern_policy_apply_duration_seconds_count 2", "postern_time_to_enforce_seconds_count 1", "postern_time_to_enforce_seconds_sum 2",
		"postern_policy_apply_failures_total 1", "postern_policy_refused_total 2",
		`postern_config_reloads_total{result="done"} 1`, `postern_config_reloads_total{result="invalid"} 2`,
	} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("there is no line %s", want)
		}
	}
	if strings.Contains(text, "nodes./v1\"} 0\npostern_source_contact") {
		t.Error("a contact that never was has a time")
	}
}

// TestBefore: there is something to read before anything is in force.
func TestBefore(t *testing.T) {
	text := read(t, New(Build{}, func() control.Status { return control.Status{Packets: control.Packets{KernelError: "no"}} }))
	for _, want := range []string{"postern_enforcing 0", "postern_kernel_readable 0"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("there is no line %s", want)
		}
	}
}

func TestHealth(t *testing.T) {
	var why atomic.Pointer[string]
	say := func(s string) { why.Store(&s) }
	say("not yet")
	ask := func() string { return *why.Load() }
	mux := http.NewServeMux()
	Health{Live: func() string { return "" }, Ready: ask, Started: ask}.Register(mux)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, mux)
	expect := func(path string, code int, text string) {
		t.Helper()
		if c, b := get(t, "http://"+l.Addr().String()+path); c != code || b != text {
			t.Errorf("%s: %d %q, want %d %q", path, c, b, code, text)
		}
	}
	expect("/livez", 200, "ok\n")
	expect("/healthz", 200, "ok\n")
	expect("/readyz", 503, "not yet\n")
	expect("/startupz", 503, "not yet\n")
	say("")
	expect("/readyz", 200, "ok\n")
	expect("/startupz", 200, "ok\n")
	if c, _ := get(t, "http://"+l.Addr().String()+"/metrics"); c != 404 {
		t.Errorf("metrics where only health is asked for: %d", c)
	}
}

// TestHostileClients: clients that connect and say nothing, or half of it, do not keep
// others out for longer than the bounds say.
func TestHostileClients(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	Health{Live: func() string { return "" }, Ready: func() string { return "" }, Started: func() string { return "" }}.Register(mux)
	serve(t, l, mux)
	for i := range maxConns {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i%2 == 0 {
			c.Write([]byte("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Slow: "))
		}
	}
	if code, _ := get(t, "http://"+l.Addr().String()+"/readyz"); code != 200 {
		t.Errorf("code %d", code)
	}
}
