// Package kube reads the objects that decisions depend on from a Kubernetes API
// server and keeps a k8ssync.Store at their state.
//
// Every resource has a feed: client-go's Reflector, which lists and watches, over
// a ListerWatcher of ours. An object is converted as it is decoded and then
// dropped; what is kept of a pod is its policy value. The feeds hand their events
// to one loop, which gathers what arrives together and changes the Store once.
//
//	API server ──list, watch──▶ feed: decode, convert ──▶ pending ──(quiet for 2 ms)──▶ lifecycle ──▶ Store
//
// What is read:
//
//   - Namespaces, ServiceAccounts, Pods, EndpointSlices and NetworkPolicies always.
//     The source is not synced without them.
//   - ClusterNetworkPolicies and Calico's kinds where the API server serves them.
//     Discovery looks again from time to time, so they may come and go. A kind that
//     is served in both of Calico's groups is read as projectcalico.org/v3.
//
// The source is synced when every feed that discovery started has its first
// complete list. From then on a feed that fails freezes its kind: nothing is
// removed because it cannot be seen. Status names each kind with its age, and the
// log says when one freezes and when it goes on.
//
// Identity belongs to a pod object, not to its name or address: a deletion counts
// only for the UID it names, a pod that has ended gives its address back, and two
// live pods with one address leave it to nobody (the compiler denies it). When a
// namespace is being deleted, its policies, network sets and service accounts stay
// in force until the last of its pods is gone, although the API server deletes
// them in any order (CVE-2024-7598).
package kube
