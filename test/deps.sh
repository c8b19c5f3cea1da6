#!/bin/sh
# Installs the Debian packages that tests and demo need and that are missing: the
# nft program, to read the table back, a C compiler, for the race detector, etcd, for
# the API server, and tshark, to read captures back, and iptables, for
# the benchmark of connections on kernels without a queue for nftables, and promtool, to
# check alert rules. With the argument vm also what
# test/vm needs: an emulator, and tools to unpack Debian's kernel and to pack the
# guest's file system. With the argument node also what a Kubernetes node is made of, with
# the argument systemd what boots a Debian to install packages on.
set -eu
need=
command -v nft >/dev/null || need="$need nftables"
command -v gcc >/dev/null || need="$need gcc libc6-dev"
command -v etcd >/dev/null || need="$need etcd-server"
command -v tshark >/dev/null || need="$need tshark"
command -v iptables >/dev/null || need="$need iptables"
command -v promtool >/dev/null || need="$need prometheus"
command -v ip >/dev/null || need="$need iproute2"
command -v conntrack >/dev/null || need="$need conntrack"
if [ "${1-}" = vm ]; then
	command -v qemu-system-x86_64 >/dev/null || need="$need qemu-system-x86"
	command -v busybox >/dev/null && busybox --list | grep -qx depmod || need="$need busybox-static"
	command -v cpio >/dev/null || need="$need cpio"
	command -v ip >/dev/null || need="$need iproute2"
	[ -e /etc/protocols ] || need="$need netbase"
fi
if [ "${1-}" = node ]; then
	command -v containerd >/dev/null || need="$need containerd"
	command -v runc >/dev/null || need="$need runc"
	[ -x /usr/lib/cni/ptp ] || need="$need containernetworking-plugins"
	command -v ip >/dev/null || need="$need iproute2"
fi
if [ "${1-}" = systemd ]; then
	command -v systemd-nspawn >/dev/null || need="$need systemd-container"
	command -v debootstrap >/dev/null || need="$need debootstrap"
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || need="$need debian-archive-keyring"
fi
[ -z "$need" ] && exit 0
if ! command -v apt-get >/dev/null; then
	echo "missing:$need; install them, or run this on Debian" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # the list is meant to be split
apt-get install -q -y --no-install-recommends $need
