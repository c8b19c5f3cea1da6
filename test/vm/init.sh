#!/bin/sh
# The first process of the guest. What it reports to the host begins with "vm:".
export PATH=/bin:/sbin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mkdir -p /run /root
mount -t tmpfs run /run
ip link set lo up
echo "vm: booted $(uname -r)"
# The kernel loads everything else by itself, but no xt target for a table of family inet.
modprobe xt_NFQUEUE
modprobe br_netfilter
export PROGRAM_UNDER_TEST=/bin/postern
while read -r dir tests; do
	cd "/src/$dir" || break
	echo "vm: begin $dir"
	"/tests/$(echo "$dir" | tr / -)" -test.v -test.count=1 -test.parallel=1 -test.skip "^TestMutations$" -test.timeout=9m -test.run "$tests" 2>&1
	echo "vm: end $dir $?"
done </tests/list
echo "vm: done"
poweroff -f
