#!/bin/sh
# Installs the Debian packages that tests and demo need and that are missing: the
# nft program, to read the table back, a C compiler, for the race detector, etcd, for
# the API server, and tshark, to read captures back.
set -eu
need=
command -v nft >/dev/null || need="$need nftables"
command -v gcc >/dev/null || need="$need gcc libc6-dev"
command -v etcd >/dev/null || need="$need etcd-server"
command -v tshark >/dev/null || need="$need tshark"
[ -z "$need" ] && exit 0
if ! command -v apt-get >/dev/null; then
	echo "missing:$need; install them, or run this on Debian" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # the list is meant to be split
apt-get install -q -y --no-install-recommends $need
