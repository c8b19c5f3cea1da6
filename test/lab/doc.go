// Package lab builds a small routed network of network namespaces: one node and
// its pods, as a routed network plugin would connect them.
//
//	pod: eth0 10.244.0.10/32, fd00:244::10/128
//	     default via 169.254.1.1 and fe80::1, both on the node's end
//	node: one veth a pod, a host route to each of the pod's addresses, forwarding on
//
// Everything is real: addresses, routes, conntrack, nftables and queues are the
// kernel's. What a pod received is read from a packet socket in its namespace, so
// a test need not believe the program it tests. Namespaces are named, so that
// `ip netns exec` reaches them, and nothing outside them is touched.
//
// It needs root.
package lab
