package e2e

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/filter/live"
	"github.com/postern-project/postern/test/lab"
)

// flows asks the daemon as an operator would.
func (b *bench) flows(args ...string) (fs []live.Flow) {
	b.Helper()
	code, out, errs := ask(b.T, nil, append([]string{"flows", "--socket", b.socket, "-o", "json"}, args...)...)
	if code != 0 {
		b.Fatalf("flows %v: exit code %d: %s", args, code, errs)
	}
	for sc := bufio.NewScanner(strings.NewReader(out)); sc.Scan(); {
		var f live.Flow
		if err := json.Unmarshal(sc.Bytes(), &f); err != nil {
			b.Fatalf("%v: %s", err, sc.Text())
		}
		fs = append(fs, f)
	}
	return fs
}

// TestFlows lists a connection with its ends, its verdict and what it carried; and after
// a change of policy, that it is denied.
func TestFlows(t *testing.T) {
	t.Parallel()
	b := setup(t, examples)
	b.serve(5432)
	b.start("--conntrack-accounting")
	bothFamilies(t, func(t *testing.T, six bool) {
		b.T = t
		c := b.connect(web, db, six)
		if err := lab.Echo(c, make([]byte, 100000), patience); err != nil {
			t.Fatal(err)
		}
		src, dst := at(b.pods[web], six, 0).Addr(), at(b.pods[db], six, 5432)
		find := func(args ...string) (found *live.Flow) {
			for _, f := range b.flows(args...) {
				if f.Src.Addr == src && f.Dst.Addr == dst.Addr() && f.Dst.Port == dst.Port() {
					found = &f
				}
			}
			return found
		}
		f := find("--pod", db, "--proto", "tcp", "--port", "5432")
		if f == nil {
			t.Fatal("the connection is not listed")
		}
		if f.Src.Pod != web || f.Src.Account != "prod-engineering/web-sa" || f.Dst.Pod != db || f.Dst.Account != "prod-engineering/db-sa" {
			t.Errorf("ends %+v, %+v", f.Src, f.Dst)
		}
		if f.Verdict != "allow" || f.Standing != live.Current || f.Policy == "" || f.TCPState != "established" || f.Translated != nil {
			t.Errorf("%+v", f)
		}
		if f.AgeSeconds == nil || *f.AgeSeconds > 60 || f.Sent == nil || f.Sent.Bytes < 100000 || f.Answered.Bytes < 100000 {
			t.Errorf("age %v, sent %+v, answered %+v", f.AgeSeconds, f.Sent, f.Answered)
		}
		if f := find("--account", "prod-engineering/api-service"); f != nil {
			t.Errorf("listed for another account: %+v", f)
		}
		b.toggle(false)
		if err := lab.Echo(c, []byte("go on"), 150*time.Millisecond); err == nil {
			t.Error("a denied connection went on")
		}
		eventually(t, "the connection is listed as denied", func() bool {
			f := find()
			return f != nil && f.Verdict == "deny" && f.Standing == live.Current
		})
		b.toggle(true)
	})
	code, out, errs := ask(t, nil, "flows", "--socket", b.socket)
	if code != 0 || !strings.HasPrefix(out, "PROTO ") || errs != "" {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
}
