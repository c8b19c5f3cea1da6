package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/postern-project/postern/filter/control"
)

// Metrics is what a daemon shows. Its methods may be called by any goroutine.
type Metrics struct {
	registry *prometheus.Registry

	apply    prometheus.Histogram
	enforce  prometheus.Histogram
	failures prometheus.Counter
	refusals prometheus.Counter
	reloads  *prometheus.CounterVec
}

// Build says what runs.
type Build struct{ Version, Revision, Go string }

// New returns the metrics of one daemon. status is asked whenever they are read.
func New(b Build, status func() control.Status) *Metrics {
	m := &Metrics{
		registry: prometheus.NewPedanticRegistry(),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postern_policy_apply_duration_seconds", Help: "Time to compile a change and put it in force.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // to 4 s
		}),
		enforce: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "postern_time_to_enforce_seconds", Help: "Time from when a change arrived from the source until it was in force.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // to 16 s
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_policy_apply_failures_total", Help: "Changes that could not be put in force at a try. The last good state stays in force.",
		}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_policy_refused_total", Help: "Changes that were refused since they break an assertion.",
		}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_config_reloads_total", Help: "Reloads of the settings. After one with result invalid those before stay.",
		}, []string{"result"}),
	}
	m.reloads.WithLabelValues("done")
	m.reloads.WithLabelValues("invalid")
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "postern_build_info", Help: "What runs; always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "goversion": b.Go},
	})
	info.Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info, m.apply, m.enforce, m.failures, m.refusals, m.reloads, collector{status},
	)
	return m
}

// Applied observes a change that was put in force: how long that took, and how long ago it
// arrived; a negative age is not known.
func (m *Metrics) Applied(took, age time.Duration) {
	m.apply.Observe(took.Seconds())
	if age >= 0 {
		m.enforce.Observe(age.Seconds())
	}
}

// Failed counts a change that could not be put in force.
func (m *Metrics) Failed() { m.failures.Inc() }

// Refused counts a change that breaks an assertion.
func (m *Metrics) Refused() { m.refusals.Inc() }

// Reloaded counts a reload of the settings.
func (m *Metrics) Reloaded(valid bool) {
	result := "done"
	if !valid {
		result = "invalid"
	}
	m.reloads.WithLabelValues(result).Inc()
}

// Handler answers with all metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: writeTimeout / 2})
}
