#!/bin/sh
# Measures what "postern bench" measures, on this machine, and makes a page with plots
# of it. The tables go into docs/replay.md, between its markers. Takes some three
# minutes; needs root.
set -eu
cd "$(dirname "$0")/.."
captures=filter/replay/testdata/captures
{
	printf '\n%s, commit %s, ' "$(date -u +%F)" "$(git describe --always --dirty)"
	echo 'decisions in memory, generated traffic'
	echo && echo '```text'
	bin/postern bench decide --rules 10,1000,10000 --pods 1000,100000 --save bin/decide.json
	printf '```\n\nPackets through the kernel, generated, each a flow of its own\n\n```text\n'
	bin/postern bench kernel --save bin/kernel.json
	printf '```\n\nPackets through the kernel, of a capture of iperf3\n\n```text\n'
	bin/postern bench kernel $captures/iperf.pcap --policy docs/examples/service-accounts --save bin/kernel-capture.json
	printf '```\n\nNew connections through a node\n\n```text\n'
	bin/postern bench connect --save bin/connect.json
	echo '```' && echo
} >bin/bench.md
bin/postern bench report bin/decide.json bin/kernel.json bin/kernel-capture.json bin/connect.json --output bin/report.html
awk -v table=bin/bench.md '
	/^<!-- begin: written by make bench-report -->/ { print; while ((getline line < table) > 0) print line; skip = 1 }
	/^<!-- end: written by make bench-report -->/ { skip = 0 }
	!skip' docs/replay.md >bin/replay.md
cat bin/replay.md >docs/replay.md
