#!/bin/sh
# Measures what "postern bench" measures, on this machine, and makes a page with plots
# of it (bin/report.html). Tables and plots go into docs/performance-replay.md, between
# its markers, and docs/plots. Takes some two minutes and stops after ten; needs root.
set -eu
cd "$(dirname "$0")/.."
captures=filter/replay/testdata/captures
bench() { timeout 150 bin/postern bench "$@"; }
plots() { # alternative text, then names of plots, two a row
	for p; do
		printf '<img src="plots/%s.svg" width="48%%" alt="%s">\n' "$p" "$p"
	done
}
table() { # heading, then the benchmark
	printf '\n<details><summary>%s</summary>\n\n```text\n' "$1"
	shift
	bench "$@"
	printf '```\n\n</details>\n'
}
{
	printf '\n%s, commit %s\n\n### Decisions in memory\n\n' "$(date -u +%F)" "$(git describe --always)"
	plots decide-where-the-time-goes decide-latency decide-scaling-with-rules decide-scaling-with-pods decide-packets-per-second decide-scaling-with-threads
	table 'All numbers' decide --duration 300ms --save bin/decide.json
	printf '\n### Packets through the kernel\n\nGenerated, each the first of a flow of its own.\n\n'
	plots kernel-packets-per-second kernel-latency
	table 'All numbers' kernel --save bin/kernel.json
	printf '\nOf a capture of iperf3, over TCP and UDP: 135 packets of four flows, again and again.\n\n'
	plots kernel-iperf-pcap-packets-per-second kernel-iperf-pcap-latency
	table 'All numbers' kernel $captures/iperf.pcap --policy docs/examples/service-accounts --save bin/kernel-capture.json
	printf '\n### New connections through a node\n\n'
	plots connect-connections-per-second connect-latency
	table 'All numbers' connect --save bin/connect.json
	echo
} >bin/bench.md
bin/postern bench report bin/decide.json bin/kernel.json bin/kernel-capture.json bin/connect.json --output bin/report.html --plots docs/plots
awk -v table=bin/bench.md '
	/^<!-- begin: written by make bench-report -->/ { print; while ((getline line < table) > 0) print line; skip = 1 }
	/^<!-- end: written by make bench-report -->/ { skip = 0 }
	!skip' docs/performance-replay.md >bin/page.md
cat bin/page.md >docs/performance-replay.md
