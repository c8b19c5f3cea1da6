package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-project/postern/filter/control"
)

// collector makes metrics of a Status.
type collector struct{ status func() control.Status }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("postern_"+name, help, labels, nil)
}

var (
	enforcing  = desc("enforcing", "1 if policy is in force.")
	generation = desc("policy_generation", "Number of the state in force. It grows with every change.")
	applied    = desc("policy_applied_timestamp_seconds", "When the state in force was put in force.")
	degraded   = desc("degraded", "How many things are not as they should be; postern status names them.")
	pods       = desc("pods", "Pods that are known.")
	policies   = desc("policies", "Policies that are known.")
	hosted     = desc("hosted_endpoints", "Addresses of pods of this node.")
	protected  = desc("protected_endpoints", "Addresses of pods of this node that policy isolates, by direction.", "direction")
	objects    = desc("objects", "Objects that are known, also those that contribute nothing, by kind.", "kind")
	unusable   = desc("unusable_objects", "Problems of objects that cannot be used as they are, by kind; postern status lists them.", "kind")
	repairs    = desc("table_repairs_total", "Times that the table in the kernel was put in again because another program had changed or removed it, or might have.")
	kept       = desc("kept_objects", "Deleted objects that stay in force until the pods of their namespace are gone.")

	nodeMissing = desc("node_missing", "1 if no pod of the cluster names this node and the cluster knows no Node of its name: a wrong --node protects nothing.")
	synced      = desc("source_synced", "1 once the source has told everything.")
	stateSaved  = desc("saved_state", "1 while the state in force is an old one from the state file.")
	kindLive    = desc("source_live", "1 if a resource of the cluster is followed without a fault.", "resource")
	kindContact = desc("source_contact_timestamp_seconds", "When the API server was last heard about a resource.", "resource")
	kindLists   = desc("source_lists_total", "Lists that were begun of a resource.", "resource")
	kindErrors  = desc("source_errors_total", "Lists and watches of a resource that failed.", "resource")

	decisions   = desc("decisions_total", "Packets that the verdict loops decided. Flows that the kernel knows are not among them.", "verdict", "reason")
	undecodable = desc("undecodable_packets_total", "Packets that could not be decoded, by what is wrong with them.", "cause")
	answers     = desc("verdict_duration_seconds", "Time that packets waited for their answer within this process.")
	dropped     = desc("dropped_packets_total", "Packets that were dropped, by cause, of which policy is one.", "cause")
	failedOpen  = desc("failed_open_packets_total", "Packets that passed unjudged because the settings say so, by cause.", "cause")
	kernel      = desc("kernel_packets_total", "Counters of the table in the kernel, in packets. A table that an earlier process left goes on with its numbers.", "counter")
	kernelOK    = desc("kernel_readable", "1 if the counters of the table in the kernel could be read.")

	queueBound     = desc("queue_bound", "1 if the kernel knows the queue.", "queue")
	queueWaiting   = desc("queue_waiting_packets", "Packets that wait for a verdict.", "queue")
	queueFull      = desc("queue_full_packets_total", "Packets that the kernel dropped because the queue was full.", "queue")
	queueUnread    = desc("queue_unread_packets_total", "Packets that the kernel dropped because the queue's socket was full.", "queue")
	queueBatches   = desc("queue_batches_total", "System calls that brought packets.", "queue")
	queueMalformed = desc("queue_malformed_messages_total", "Messages of the kernel that could not be read.", "queue")
	queueRefused   = desc("queue_refused_verdicts_total", "Verdicts for packets that were gone.", "queue")
	queueRetries   = desc("queue_send_retries_total", "Sends of verdicts that were repeated for want of memory.", "queue")

	holding = desc("held_packets", "Packets that wait for their pod to be known.")
	holds   = desc("holds_total", "Packets that waited for their pod, by what became of them.", "outcome")

	log      = desc("flow_log_records_total", "Decisions, by what became of them on their way to the flow log. Lost ones found no room.", "outcome")
	requests = desc("ext_authz_requests_total", "Requests that proxies asked about.", "verdict", "reason")
	checks   = desc("ext_authz_duration_seconds", "Time that answers to proxies took within this process.")
	faults   = desc("ext_authz_faults_total", "Requests that were denied because postern is at fault.")
)

// Describe names nothing in advance: labels come with what there is to tell.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		enforcing, generation, applied, degraded, pods, policies, hosted, protected, objects, unusable, kept, repairs,
		nodeMissing, synced, stateSaved, kindLive, kindContact, kindLists, kindErrors,
		decisions, undecodable, answers, dropped, failedOpen, kernel, kernelOK,
		queueBound, queueWaiting, queueFull, queueUnread, queueBatches, queueMalformed, queueRefused, queueRetries,
		holding, holds, log, requests, checks, faults,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	e, st := emitter(ch), c.status()
	e.gauge(enforcing, bit(st.Enforcing))
	e.gauge(generation, float64(st.Generation))
	if !st.Applied.IsZero() {
		e.gauge(applied, float64(st.Applied.UnixMilli())/1e3)
	}
	e.gauge(degraded, float64(len(st.Degraded)))
	e.gauge(pods, float64(st.Pods))
	e.gauge(policies, float64(st.Policies))
	e.gauge(hosted, float64(st.Hosted))
	e.gauge(protected, float64(st.ProtectedIngress), "ingress")
	e.gauge(protected, float64(st.ProtectedEgress), "egress")
	for kind, n := range st.Objects {
		e.gauge(objects, float64(n), kind)
	}
	for kind, n := range st.UnusableKinds {
		e.gauge(unusable, float64(n), kind)
	}
	e.gauge(kept, float64(st.Kept))
	e.counter(repairs, st.Repairs)
	e.source(&st)
	e.packets(&st.Packets)
	for _, d := range st.Requests.Decided {
		e.counter(requests, d.Count, d.Verdict, d.Reason)
	}
	e.latency(checks, &st.Requests.Answers)
	e.counter(faults, st.Requests.Faults)
}

// emitter sends metrics.
type emitter chan<- prometheus.Metric

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (e emitter) counter(d *prometheus.Desc, v uint64, labels ...string) {
	e <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (e emitter) source(st *control.Status) {
	e.gauge(nodeMissing, bit(st.NodeMissing))
	e.gauge(synced, bit(st.Synced))
	e.gauge(stateSaved, bit(!st.Saved.IsZero()))
	for _, k := range st.Kinds {
		e.gauge(kindLive, bit(k.State == "live"), k.Resource)
		if !k.Contact.IsZero() {
			e.gauge(kindContact, float64(k.Contact.UnixMilli())/1e3, k.Resource)
		}
		e.counter(kindLists, k.Lists, k.Resource)
		e.counter(kindErrors, k.Errors, k.Resource)
	}
}

func (e emitter) packets(p *control.Packets) {
	for _, d := range p.Decided {
		e.counter(decisions, d.Count, d.Verdict, d.Reason)
	}
	for cause, n := range p.Undecodable {
		e.counter(undecodable, n, cause)
	}
	e.latency(answers, &p.Answers)
	for cause, n := range p.Dropped {
		e.counter(dropped, n, cause)
	}
	for cause, n := range p.FailedOpen {
		e.counter(failedOpen, n, cause)
	}
	for name, n := range p.Kernel {
		e.counter(kernel, n, name)
	}
	e.gauge(kernelOK, bit(p.KernelError == ""))
	for _, q := range p.Queues {
		number := strconv.Itoa(int(q.Number))
		e.gauge(queueBound, bit(q.Bound), number)
		e.gauge(queueWaiting, float64(q.Waiting), number)
		e.counter(queueFull, q.Full, number)
		e.counter(queueUnread, q.Unread, number)
		e.counter(queueBatches, q.Batches, number)
		e.counter(queueMalformed, q.Malformed, number)
		e.counter(queueRefused, q.Refused, number)
		e.counter(queueRetries, q.Retries, number)
	}
	e.gauge(holding, float64(p.Holds.Now))
	e.counter(holds, p.Holds.Decided, "decided")
	e.counter(holds, p.Holds.Expired, "expired")
	e.counter(holds, p.Holds.Refused, "refused")
	for outcome, n := range map[string]uint64{
		"written": p.Log.Lines, "repeated": p.Log.Repeated, "sampled-out": p.Log.SampledOut, "suppressed": p.Log.Suppressed, "lost": p.Log.Lost,
	} {
		e.counter(log, n, outcome)
	}
}

func (e emitter) latency(d *prometheus.Desc, l *control.Latency) {
	if len(l.Bounds) == 0 {
		return
	}
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, n := range l.Within {
		sum += n
		if i < len(l.Bounds) {
			buckets[l.Bounds[i]] = sum
		}
	}
	e <- prometheus.MustNewConstHistogram(d, sum, l.Sum, buckets)
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
