#!/bin/sh
# Runs every fuzz target of the module for the time given, one after the other.
set -eu
time=${1:?how long, such as 10s}
go=${GO:-go}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz TARGET PACKAGE: the Go tool sometimes reports its own deadline as the failure of
# the target. A finding has an input or a
# panic besides; only without either is the end of the time no failure.
fuzz() {
	"$go" test -run '^$' -fuzz "^$1\$" -fuzztime "$time" "$2" >"$log" 2>&1 && return
	if grep -qx ' *context deadline exceeded' "$log" && ! grep -qE 'Failing input written|panic:|\.go:[0-9]+:' "$log"; then
		echo "the time was over in the middle of an input"
		return
	fi
	cat "$log"
	return 1
}

for file in $(grep -rlE '^func Fuzz' --include='*_test.go' .); do
	for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$file"); do
		echo "fuzz $target in $(dirname "$file") for $time"
		fuzz "$target" "$(dirname "$file")"
		tail -n 1 "$log"
	done
done
