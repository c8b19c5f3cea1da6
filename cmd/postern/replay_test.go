package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	replayCaptures = "../../filter/replay/testdata/captures/"
	replayPolicy   = "../../docs/examples/service-accounts"
)

func command(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = execute(context.Background(), args, &out, &errs)
	return out.String(), errs.String(), code
}

func TestReplayText(t *testing.T) {
	t.Parallel()
	out, errs, code := command("replay", replayCaptures+"http.pcap", replayCaptures+"sctp.pcap", "--policy", replayPolicy)
	want := `../../filter/replay/testdata/captures/http.pcap: 95 packets
../../filter/replay/testdata/captures/sctp.pcap: 4 packets

           flows  packets  bytes
  allowed      4       61  44378
   denied      2       25   1936
2 packets are ICMP errors about a flow and go with it
3 packets are ICMPv6 of the link, which is not filtered
8 packets are not IP

denied, the most flows first
       1  prod-engineering/reports (reports-sa) -> prod-engineering/db (db-sa)  tcp/5432
      denied at ingress: no rule of tier default matches
       1  203.0.113.9 -> prod-engineering/db (db-sa)  sctp/5432
      denied at ingress: no rule of tier default matches

addresses without a pod, the most flows first (--map IP=namespace/pod gives them to one)
       1  203.0.113.9
`
	if out != want || errs != "" || code != 0 {
		t.Errorf("code %d, stderr %q, stdout:\n%s", code, errs, out)
	}
}

// The capture's address outside becomes a pod's, by the flag and by a file.
func TestReplayMap(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(file, []byte("# who is who\n203.0.113.9  prod-engineering/auth # outside\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{
		{"--map", "203.0.113.9=prod-engineering/auth"},
		{"--map", "203.0.113.9=sa:prod-engineering/user-auth-service"},
		{"--map-file", file},
	} {
		out, errs, code := command(append([]string{"replay", replayCaptures + "sctp.pcap", "--policy", replayPolicy}, flags...)...)
		if code != 0 || errs != "" || !strings.Contains(out, "allowed      2") || strings.Contains(out, "without a pod") {
			t.Errorf("%v: code %d, %s%s", flags, code, errs, out)
		}
	}
	// An address that a pod has goes to the other.
	out, _, _ := command("replay", replayCaptures+"sctp.pcap", "--policy", replayPolicy, "--map", "10.244.0.11=prod-engineering/reports")
	if !strings.Contains(out, "denied      2") {
		t.Error(out)
	}
	for text, want := range map[string]string{
		"10.0.0.1":                "want IP=namespace/pod",
		"10.0.0.300=a/b":          "want IP=namespace/pod",
		"10.0.0.1=a/":             "want IP=namespace/pod",
		"10.0.0.1=prod/nobody":    "no Pod prod/nobody is among the manifests",
		"10.0.0.1=sa:prod/nobody": "no ServiceAccount prod/nobody",
	} {
		_, errs, code := command("replay", replayCaptures+"sctp.pcap", "--policy", replayPolicy, "--map", text)
		if code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, %s", text, code, errs)
		}
	}
}

// What is damaged is named, what could be read is reported all the same.
func TestReplayDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole, err := os.ReadFile(replayCaptures + "dns.pcap")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	unknown := bytes.Clone(whole)
	unknown[20] = 147
	ends := bytes.Clone(whole)
	ends[24+8] = 0xff // captured length of the first packet
	ends[24+9] = 0xff
	for _, tc := range []struct {
		path, message string
	}{
		{write("cut", whole[:len(whole)-5]), "packet 8: the capture ends in the middle"},
		{write("empty", nil), "the capture is empty"},
		{write("unknown", unknown), "link type 147 is not known here"},
		{write("damaged", ends), "packet 1: the capture is damaged"},
		{filepath.Join(dir, "missing"), "no such file"},
		{dir, ": is a directory"},
	} {
		out, errs, code := command("replay", tc.path, replayCaptures+"sctp.pcap", "--policy", replayPolicy, "-o", "json")
		if code != exitUsage || !strings.Contains(errs, tc.message) || strings.Contains(errs, "--help") || strings.Contains(errs, "damaged") != strings.Contains(tc.message, "damaged") {
			t.Errorf("%s: code %d, %s", tc.path, code, errs)
		}
		var report struct {
			Captures []captureReport
			Flows    int
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatal(err)
		}
		if len(report.Captures) != 2 || report.Captures[0].Error == "" || report.Captures[1].Packets != 4 || report.Flows < 2 {
			t.Errorf("%s: %+v", tc.path, report)
		}
	}
	// Cut by the snap length, in the middle of the ports.
	var short []byte
	short = append(short, whole[:24]...)
	for b := whole[24:]; len(b) > 0; {
		n := int(b[8]) | int(b[9])<<8
		short = append(append(short, b[:8]...), 36, 0, 0, 0)
		short = append(append(short, b[12:16]...), b[16:16+36]...)
		b = b[16+n:]
	}
	out, errs, code := command("replay", write("short", short), "--policy", replayPolicy)
	if code != exitUsage || !strings.Contains(errs, "8 packets cut off too early to read their ports, the first is packet 1") || !strings.Contains(out, "8 packets were captured too short") {
		t.Errorf("snap length: code %d, %s%s", code, errs, out)
	}
}

// A change of policy that cuts off what was seen to flow is found and is exit code 1.
func TestReplayBaseline(t *testing.T) {
	t.Parallel()
	changed := t.TempDir()
	if err := os.CopyFS(changed, os.DirFS(replayPolicy)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(changed, "policy-1-names.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(text, []byte("api-service"), []byte("reports-sa")), 0o644); err != nil {
		t.Fatal(err)
	}
	out, errs, code := command("replay", replayCaptures+"http.pcap", "--policy", changed, "--baseline", replayPolicy)
	if code != exitNo || errs != "" {
		t.Errorf("code %d, %s", code, errs)
	}
	for _, want := range []string{
		"would be denied, and is not now\n       2  prod-engineering/api (api-service) -> prod-engineering/db (db-sa)  tcp/5432\n" +
			"      was  allowed at ingress by rule ingress[0] (Allow) of NetworkPolicy prod-engineering/demo-calico in tier default\n" +
			"      is   denied at ingress: no rule of tier default matches\n",
		"would pass, and is denied now\n       1  prod-engineering/reports",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	out, _, code = command("replay", replayCaptures+"http.pcap", "--policy", replayPolicy, "--baseline", replayPolicy)
	if code != 0 || !strings.Contains(out, "no verdict differs from the baseline's") {
		t.Errorf("code %d, %s", code, out)
	}
}

func TestReplayLists(t *testing.T) {
	t.Parallel()
	out, errs, code := command("replay", replayCaptures+"http.pcap", "--policy", replayPolicy, "-o", "csv")
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if code != 0 || errs != "" || err != nil || len(rows) != 5 {
		t.Fatalf("code %d, %s, %v, %d rows", code, errs, err, len(rows))
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	denied := rows[3]
	for name, want := range map[string]string{
		"flow": "3", "verdict": "deny", "reason": "end-of-tier", "protocol": "tcp", "from": "prod-engineering/reports", "from_account": "reports-sa",
		"source": "10.244.0.14", "destination_port": "5432", "packets": "12", "packets_back": "12",
	} {
		if denied[column[name]] != want {
			t.Errorf("%s: %q, want %q", name, denied[column[name]], want)
		}
	}
	out, _, _ = command("replay", replayCaptures+"http.pcap", "--policy", replayPolicy, "-o", "jsonl")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var record struct {
		Verdict string
		Why     struct{ Rule struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(lines[0]), &record); err != nil || len(lines) != 4 || record.Verdict != "allow" || record.Why.Rule.Name != "demo-calico" {
		t.Errorf("%d lines, %v, %+v", len(lines), err, record)
	}
}

// tshark reads what --write writes, and its filters find the comments.
func TestReplayWrite(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"http.pcap", "mixed.pcapng", "fragments.pcap"} {
		path := filepath.Join(t.TempDir(), "judged.pcapng")
		if out, errs, code := command("replay", replayCaptures+name, "--policy", replayPolicy, "--write", path); code != 0 {
			t.Fatalf("code %d, %s%s", code, errs, out)
		}
		tshark := func(args ...string) []string {
			cmd := exec.Command("tshark", args...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("tshark (Debian package tshark): %v: %s", err, errs.String())
			}
			return strings.Split(strings.TrimSpace(string(out)), "\n")
		}
		before := tshark("-r", replayCaptures+name, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "ip.src", "-e", "tcp.seq_raw")
		after := tshark("-r", path, "-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "ip.src", "-e", "tcp.seq_raw")
		if strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Errorf("%s: tshark sees other packets than in the original", name)
		}
		for _, comment := range tshark("-r", path, "-T", "fields", "-e", "frame.comment") {
			if !strings.HasPrefix(comment, "postern: ") {
				t.Errorf("%s: comment %q", name, comment)
			}
		}
		denied := tshark("-r", path, "-Y", `frame.comment contains "verdict=deny"`, "-T", "fields", "-e", "ip.addr", "-e", "ipv6.addr")
		for _, ends := range denied {
			if !strings.Contains(ends, "10.244.0.14") && !strings.Contains(ends, "fd00:244::14") {
				t.Errorf("%s: %s is marked as denied", name, ends)
			}
		}
		if len(denied) < 6 {
			t.Errorf("%s: %d denied packets", name, len(denied))
		}
	}
}

// Names in manifests and of files are foreign; no control character of theirs may
// reach a terminal.
func TestReplayEscapes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(replayPolicy)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "pods.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Names of objects are validated; an account's name in a pod is free text.
	text = bytes.Replace(text, []byte("serviceAccountName: reports-sa"), []byte(`serviceAccountName: "reports\e[31m\u009b2J\r"`), 1)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	capture := filepath.Join(dir, "a\x1b]0;title\x07.pcap")
	for i, from := range []string{"http.pcap", ""} {
		b := []byte("no capture at all")
		if from != "" {
			if b, err = os.ReadFile(replayCaptures + from); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(capture, b, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"text", "csv", "json", "jsonl"} {
			written := filepath.Join(dir, "out.pcapng")
			out, errs, _ := command("replay", capture, "--policy", dir, "-o", format, "--write", written)
			if i == 0 && !strings.Contains(out, "reports?[31m") && !strings.Contains(out, `reports\u001b[31m`) {
				t.Errorf("%s: the account is not named:\n%s", format, out)
			}
			for _, s := range []string{out, errs} {
				if strings.ContainsAny(s, "\x1b\x07\r\u009b") {
					t.Errorf("%s: control characters in %q", format, s)
				}
			}
			if b, err := os.ReadFile(written); err != nil || bytes.Contains(b, []byte("\x1b[31m")) {
				t.Errorf("%s: comments hold an escape, %v", format, err)
			}
		}
	}
}

// A pod whose manifest has no address, or an old one, is at the address it is mapped
// to, with its labels, account and named ports; a pod of the host's network is nowhere.
func TestReplayMapUnplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pod := func(name, spec, status string) string {
		return "---\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: prod-engineering, labels: {app: " + name + "}}\nspec: {" + spec + "}\nstatus: {" + status + "}\n"
	}
	port := "containers: [{name: c, ports: [{name: sql, containerPort: 5432, protocol: TCP}]}]"
	write("world.yaml", `apiVersion: v1
kind: Namespace
metadata: {name: prod-engineering}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: prod-engineering}
spec:
  selector: app == 'db'
  ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [api-service]}}, destination: {ports: [sql]}}]
`+pod("db", "serviceAccountName: db-sa, "+port, "")+pod("api", "serviceAccountName: api-service, nodeName: gone", "phase: Succeeded, podIPs: [{ip: 10.99.0.1}]")+
		pod("reports", "serviceAccountName: reports-sa", "phase: Pending")+pod("agent", "hostNetwork: true", "phase: Running, podIPs: [{ip: 10.98.0.1}]"))
	file := write("map.txt", "10.244.0.10 prod-engineering/db\n10.244.0.11\tprod-engineering/api\n10.244.0.14 = prod-engineering/reports\n10.244.0.13 sa:prod-engineering/reports-sa\n")
	flags := []string{"--map", "10.244.0.10=prod-engineering/db", "--map", "10.244.0.11=prod-engineering/api", "--map", "10.244.0.14=prod-engineering/reports", "--map", "10.244.0.13=sa:prod-engineering/reports-sa"}
	want := "prod-engineering/reports (reports-sa) -> prod-engineering/db (db-sa)  tcp/5432\n      denied at ingress: no rule of tier default matches"
	for _, f := range [][]string{flags, {"--map-file", file}} {
		for _, place := range [][]string{{"--policy", dir}, {"--policy", filepath.Join(dir, "world.yaml"), "--world", replayPolicy}} {
			out, errs, code := command(append(append([]string{"replay", replayCaptures + "http.pcap"}, place...), f...)...)
			if code != 0 || errs != "" || !strings.Contains(out, "allowed      2") || !strings.Contains(out, want) || strings.Contains(out, "without a pod") {
				t.Errorf("%v %v: code %d, %s%s", place, f, code, errs, out)
			}
		}
	}
	_, errs, code := command("replay", replayCaptures+"http.pcap", "--policy", dir, "--map", "10.244.0.10=prod-engineering/agent")
	if code != exitUsage || !strings.Contains(errs, "prod-engineering/agent is on the host's network") {
		t.Errorf("code %d, %s", code, errs)
	}
}

func TestReplayFlags(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"replay --policy x", "want the captures"},
		{"replay a.pcap", "--policy is required"},
		{"replay a.pcap --policy /does/not/exist", "/does/not/exist"},
		{"replay a.pcap --policy x -o xml", "--output"},
		{"replay a.pcap --policy x --max-flows 0", "--max-flows"},
		{"replay a.pcap --policy x --mid-stream no", "--mid-stream"},
		{"replay a.pcap --policy x --top -1", "--top"},
		{"replay a.pcap --policy " + replayPolicy + " --node-address here", "--node-address"},
		{"replay " + replayCaptures + "dns.pcap --policy " + replayPolicy + " --write /does/not/exist/x", "--write"},
	} {
		_, errs, code := command(strings.Fields(tc.args)...)
		if code != exitUsage || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: code %d, %s", tc.args, code, errs)
		}
	}
}

// TestReplayWritesOverNoCapture: by whatever name.
func TestReplayWritesOverNoCapture(t *testing.T) {
	t.Parallel()
	capture := filepath.Join(t.TempDir(), "a.pcap")
	link := capture + ".link"
	text, err := os.ReadFile("../../filter/replay/testdata/captures/http.pcap")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(capture, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(capture, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{capture, link} {
		code, _, errs := cli(t, "replay", capture, "--policy", exampleManifests, "--write", name)
		if code != 2 || !strings.Contains(errs, "--write "+name+": is among the captures to read") {
			t.Errorf("--write %s: exit code %d, said %s", name, code, errs)
		}
	}
	if now, err := os.ReadFile(capture); err != nil || string(now) != string(text) {
		t.Errorf("the capture was changed: %v", err)
	}
}
