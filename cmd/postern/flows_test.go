package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/postern-project/postern/filter/live"
)

func TestPrintFlows(t *testing.T) {
	t.Parallel()
	age, kind, code := 3725.4, uint8(8), uint8(0)
	end := func(a string, port uint16, pod, account string) live.End {
		return live.End{Addr: netip.MustParseAddr(a), Port: port, Pod: pod, Account: account}
	}
	at := netip.MustParseAddrPort
	flows := []live.Flow{
		{
			Proto: "tcp", Src: end("10.0.0.1", 40000, "a/web", "a/web-sa"), Dst: end("10.0.0.2", 5432, "a/d\x1b[31mb", ""), TCPState: "established",
			Verdict: "allow", Standing: live.Current, AgeSeconds: &age, Sent: &live.Count{Packets: 12, Bytes: 3400}, Answered: &live.Count{},
			Translated: &live.Translation{
				Original:    live.Addresses{Src: at("10.0.0.1:40000"), Dst: at("10.96.0.9:80")},
				Reply:       live.Addresses{Src: at("10.0.0.2:5432"), Dst: at("192.168.1.1:777")},
				Destination: true, Source: true,
			},
		},
		{Proto: "icmp", Src: end("10.0.0.1", 0, "a/web", "a/web-sa"), Dst: end("1.1.1.1", 0, "", ""), ICMPType: &kind, ICMPCode: &code, Verdict: "deny", Standing: live.Again},
		{Proto: "udp", Src: end("fd00::1", 53, "", ""), Dst: end("fd00::2", 53, "", ""), Verdict: "none", Standing: live.Again},
	}
	var b strings.Builder
	if err := printFlows(&b, flows); err != nil {
		t.Fatal(err)
	}
	want := `
PROTO  FROM                      ACCOUNT   TO                           ACCOUNT  VERDICT      STATE          AGE     SENT     ANSWERED  VIA
udp    [fd00::1]:53              -         [fd00::2]:53                 -        none         -              -       -        -         -
icmp   a/web (10.0.0.1)          a/web-sa  1.1.1.1                      -        deny, again  type 8 code 0  -       -        -         -
tcp    a/web (10.0.0.1:40000)    a/web-sa  a/d?[31mb (10.0.0.2:5432)    -        allow        established    1h2m5s  12/3400  0/0       10.96.0.9:80, as 192.168.1.1:777
`
	// Columns are as wide as they need be.
	if d := cmp.Diff(strings.Fields(want), strings.Fields(b.String())); d != "" {
		t.Errorf("-want +got:\n%s\n%s", d, b.String())
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Error("an escape sequence came through")
	}
}

func TestFlowsRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		says string
		code int
	}{
		{[]string{"-o", "yaml"}, "--output", exitUsage},
		{[]string{"--pod", "db"}, "--pod", exitUsage},
		{[]string{"--account", "a/"}, "--account", exitUsage},
		{[]string{"--proto", "tpc"}, "--proto", exitUsage},
		{[]string{"--port", "65536"}, "--port", exitUsage},
		{[]string{"--limit", "-1"}, "--limit", exitUsage},
		{[]string{"db"}, "flags only", exitUsage},
		{[]string{"--socket", "/nowhere/postern.sock"}, "is postern running?", exitUnreachable},
	} {
		var out, errs strings.Builder
		code := execute(t.Context(), append([]string{"flows"}, tc.args...), &out, &errs)
		if code != tc.code || !strings.Contains(errs.String(), tc.says) || out.Len() > 0 {
			t.Errorf("%v: exit code %d, %q, %q", tc.args, code, out.String(), errs.String())
		}
	}
}
