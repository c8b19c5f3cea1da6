// Package systemd installs postern's packages on a booted Debian 12 and tries there what
// operators do, and what happens to them: install, start, policy on real packets,
// restarts and crashes under load, a process that hangs, upgrade, removal.
//
//	Node (lab) 192.168.77.1: the network namespace of
//	  systemd-nspawn, with systemd 252 as its first process
//	    postern.service
//	pods of docs/examples, each a network namespace
//
// Packets are sent and counted in the pods, not by postern. The machine's files are an
// overlay on a minimal Debian that is made with debootstrap, once, and kept in the
// user's cache; so what packages leave behind is what the overlay holds.
//
// The tests have the build tag systemd: make test-systemd. They need root and, from
// Debian: systemd-container debootstrap.
package systemd
