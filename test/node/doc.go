// Package node runs a real Kubernetes node in a network namespace of a lab, as a
// cluster with one node would have it: kubelet, containerd with runc and Debian's
// CNI plugins, kube-proxy in nftables mode, controller manager, scheduler, API
// server and etcd.
//
//	Node (lab) 192.168.77.1, fd00:77::1
//	  kubelet, containerd ── one PID and mount namespace, so that nothing survives
//	  kube-proxy
//	  pods 10.244.1.0/24, fd00:244:1::/64 by ptp and host-local
//
// Pods run a program of ours that waits. Traffic is made in their network
// namespaces, and what arrived is read there, not from postern.
//
// The tests have the build tag node: make test-node. They need root and, from
// Debian: containerd runc containernetworking-plugins etcd-server nftables.
package node
