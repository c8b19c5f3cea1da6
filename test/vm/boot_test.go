package main

import (
	"io"
	"strings"
	"testing"
)

// TestRead: only a guest that ran every suite to its end, with a test that passed in
// each and none that failed or was skipped, is a success.
func TestRead(t *testing.T) {
	t.Parallel()
	const good = "vm: booted 6.1\r\nvm: begin a/b\r\n=== RUN   TestA\r\n--- PASS: TestA (0.01s)\r\nPASS\r\nvm: end a/b 0\r\nvm: done\r\n"
	for _, tc := range []struct{ name, console, want string }{
		{"good", good, ""},
		{"nothing", "", "before it was done"},
		{"panic in the middle", good[:strings.Index(good, "PASS\r\n")] + "Kernel panic - not syncing", `before it was done, in "a/b"`},
		{"failure", strings.Replace(good, "--- PASS: TestA", "--- FAIL: TestA", 1), "a/b: --- FAIL: TestA"},
		{"failure below", strings.Replace(good, "PASS\r\n", "    --- FAIL: TestA/x (0.00s)\r\n", 1), "TestA/x"},
		{"skip", strings.Replace(good, "PASS\r\n", "    --- SKIP: TestA/x (0.00s)\r\n", 1), "SKIP"},
		{"exit code", strings.Replace(good, "end a/b 0", "end a/b 2", 1), "exit code 2"},
		{"no test matches", strings.Replace(good, "--- PASS: TestA (0.01s)", "testing: warning: no tests to run", 1), "0 tests passed"},
		{"another suite", strings.ReplaceAll(good, "a/b", "c"), "a/b did not end"},
	} {
		err := read(strings.NewReader(tc.console), io.Discard, []suite{{dir: "a/b"}})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}
