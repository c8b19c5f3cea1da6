// Package gen makes the worlds and the traffic that benchmarks run on, from fixed
// seeds: the same arguments give the same values on every machine. Worlds are
// policy.Snapshots, so postern and its rivals start from the same input.
//
// A cluster has 400 namespaces of 25 workloads. What its policies say follows what
// Kubernetes users write: a default deny per namespace, traffic within the
// namespace, DNS, and rules of one to ten lines for each workload. Nothing here is
// taken from a real cluster, and real ones differ.
package gen
