// Package hostlink finds the links of this host that lead to its pods.
//
// No network plugin is asked: a link leads to a pod if a route to the pod's address
// goes over it and over no gateway. That is a veth of the pod's own where each pod
// has a host route (Calico, Cilium, ptp), and the bridge where pods share one. Pods of
// other hosts lie behind gateways or tunnels and give no link.
//
// A Watcher looks again whenever routes or links change, and when pods do.
package hostlink
