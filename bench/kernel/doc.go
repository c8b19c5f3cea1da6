// Package kernel holds benchmarks of whole packet paths: real connections through a
// node in a lab of network namespaces, with and without postern. They need root.
package kernel
