package main

import (
	"strings"
	"testing"
)

// TestExplainEnds: how the flags of explain name a flow, and what is said where
// they name none.
func TestExplainEnds(t *testing.T) {
	t.Parallel()
	const reports, db = "prod-engineering/reports", "prod-engineering/db"
	for _, tc := range []struct {
		name, from, to, port string
		more                 []string
		code                 int
		says                 string // the beginning of the answer or of what is said
	}{
		{"pods", reports, db, "tcp/5432", nil, 1, "DENY tcp 10.244.0.14:40000 -> 10.244.0.10:5432: "},
		{"pod with its kind", "pod:" + reports, "pod:" + db, "udp/53", nil, 1, "DENY udp 10.244.0.14:40000 -> 10.244.0.10:53: "},
		{"IPv6", "prod-engineering/api", db, "icmpv6:128/0", []string{"--ipv6"}, 0, "ALLOW icmpv6 fd00:244::11 -> fd00:244::10 type 128 code 0: "},
		{"an address decides the family", "2001:db8::1", db, "tcp/1", []string{"--source-port", "7"}, 1, "DENY tcp [2001:db8::1]:7 -> [fd00:244::10]:1: "},
		{"mapped address", "::ffff:192.0.2.1", db, "112", nil, 1, "DENY 112 192.0.2.1 -> 10.244.0.10: "},
		{"two families", "192.0.2.1", "2001:db8::1", "tcp/1", nil, 2, "postern: --from 192.0.2.1 and --to 2001:db8::1: one is IPv4 and the other IPv6\n"},
		{"no such pod", "a/b", db, "tcp/1", nil, 2, "postern: --from a/b: no such pod in " + exampleManifests + ", or it is not an endpoint (finished, on the host network, or without an address)\n"},
		{"no end", reports, "db", "tcp/1", nil, 2, "postern: --to \"db\": want an address, or a pod as namespace/name\n"},
		{"zone", "fe80::1%eth0", db, "tcp/1", nil, 2, "postern: --from \"fe80::1%eth0\": want an address, or a pod as namespace/name\n"},
		{"no port", reports, db, "http/80", nil, 2, "postern: --port \"http/80\": want tcp/80, udp/53, sctp/9, icmp:8/0, icmpv6:128 or a protocol number\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"explain", "--source", exampleManifests, "--from", tc.from, "--to", tc.to, "--port", tc.port}, tc.more...)
			code, out, errs := cli(t, args...)
			if code != tc.code || !strings.HasPrefix(out+errs, tc.says) {
				t.Errorf("exit code %d, said\n%s%s\nwant %d and %s", code, out, errs, tc.code, tc.says)
			}
		})
	}
}
