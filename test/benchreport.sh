#!/bin/sh
# Measures what "postern bench" measures, on this machine, and makes a page with plots
# of it (bin/report.html). Tables and plots go into docs/performance-replay.md, between
# its markers, and docs/plots. Takes some two minutes and stops after ten; needs root.
# With ONLY=decide, kernel, capture or connect it measures that part again and takes
# the others from the last time.
set -eu
cd "$(dirname "$0")/.."
captures=filter/replay/testdata/captures
parts='decide kernel capture connect'
measure() { # part, then the benchmark
	part=$1
	shift
	case ${ONLY:-$part} in
	"$part") timeout 150 bin/postern bench "$@" --save "bin/$part.json" >"bin/$part.txt" ;;
	esac
}
measure decide decide --duration 300ms
measure kernel kernel
measure capture kernel $captures/iperf.pcap --policy docs/examples/service-accounts
measure connect connect

plots() { # names of plots, two a row
	for p; do
		printf '<img src="plots/%s.svg" width="48%%" alt="%s">\n' "$p" "$p"
	done
	echo
}
table() {
	printf '<details><summary>All numbers</summary>\n\n```text\n'
	cat "bin/$1.txt"
	printf '```\n\n</details>\n\n'
}
results=
for part in $parts; do results="$results bin/$part.json"; done
bin/postern bench report $results --output bin/report.html --plots docs/plots
{
	printf '\n%s, commit %s\n\n### Decisions in memory\n\n' "$(date -u +%F)" "$(git describe --always)"
	plots decide-where-the-time-goes decide-latency decide-scaling-with-rules decide-scaling-with-pods decide-packets-per-second decide-scaling-with-threads
	table decide
	printf '### Packets through the kernel\n\nGenerated, each the first of a flow of its own.\n\n'
	plots kernel-packets-per-second kernel-latency
	table kernel
	printf 'Of a capture of iperf3, over TCP and UDP: 135 packets of four flows, again and again.\n\n'
	plots kernel-iperf-pcap-packets-per-second kernel-iperf-pcap-latency
	table capture
	printf '### New connections through a node\n\n'
	plots connect-connections-per-second connect-latency
	table connect
} >bin/bench.md
awk -v table=bin/bench.md '
	/^<!-- begin: written by make bench-report -->/ { print; while ((getline line < table) > 0) print line; skip = 1 }
	/^<!-- end: written by make bench-report -->/ { skip = 0 }
	!skip' docs/performance-replay.md >bin/page.md
cat bin/page.md >docs/performance-replay.md
