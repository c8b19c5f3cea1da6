// Package check tests the chart with Helm's own library: as it is packaged, against
// the kustomizations that it stands beside, and in a real API server. It is a module of
// its own, so that nothing else depends on Helm.
package check
