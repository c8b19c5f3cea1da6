// Command kube measures postern on the node of a large cluster: a real API server,
// filled by a loader with the pods, service accounts and policies of 5,000 nodes, a
// churn of events, and the daemon beside it, whose verdicts are read off packets in a
// lab of network namespaces.
package main
