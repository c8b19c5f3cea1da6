#!/bin/sh
# Runs every fuzz target of the module for the time given, one after the other.
set -eu
time=${1:?how long, such as 10s}
go=${GO:-go}
for file in $(grep -rlE '^func Fuzz' --include='*_test.go' .); do
	for target in $(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$file"); do
		echo "fuzz $target in $(dirname "$file") for $time"
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$(dirname "$file")"
	done
done
