// Package metrics shows a daemon to Prometheus, and tells whoever starts and stops it
// how it is.
//
// Every metric is named and explained in this package, by the rules of
// prometheus.io/docs/practices/naming: base units, _total on what only grows. No label
// holds the name of a pod, an account or a policy, nor an address: their number has no
// bound, and who may read metrics need not be one who may read pods.
//
// Most values are read from the daemon's Status when somebody asks, so that what metrics,
// "postern status" and the log say is the same. Those that are distributions over time
// are observed as it passes.
package metrics
