package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	jwt := "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLXNlY3JldA"
	for text, want := range map[string]string{
		"Get x: token " + jwt + " expired":                                           "Get x: token REDACTED expired",
		"Authorization: Bearer abcdef012345, more":                                   "Authorization: REDACTED, more",
		"header Bearer abcdef012345 rest":                                            "header Bearer REDACTED rest",
		`{"authorization":"Basic dXNlcjpwYXNz","a":1}`:                               `{"authorization":REDACTED,"a":1}`,
		`{"level":"warn","token":"hunter2 hunter3","a":"b"}`:                         `{"level":"warn","token":REDACTED,"a":"b"}`,
		`{"message":"bad line: {\"password\":\"x y\",\"a\":1}"}`:                     `{"message":"bad line: {\"password\":REDACTED,\"a\":1}"}`,
		"client-key-data: LS0tLS1CRUdJTg==\nname: x":                                 "client-key-data: REDACTED\nname: x",
		"    token: hunter2\n    client-certificate-data: 'abc'":                     "    token: REDACTED\n    client-certificate-data: REDACTED",
		"https://user:pass@10.0.0.1:6443/api":                                        "https://REDACTED@10.0.0.1:6443/api",
		"x -----BEGIN RSA PRIVATE KEY-----\nab\ncd\n-----END RSA PRIVATE KEY----- y": "x REDACTED y",
		`-----BEGIN EC KEY-----\nab\ncd`:                                             "REDACTED",
		strings.Repeat("Ab1/", 16) + "==":                                            "REDACTED",
		"prod/web (web-sa) 10.0.0.1:80 policy default.deny":                          "prod/web (web-sa) 10.0.0.1:80 policy default.deny",
		`{"src_pod":"prod/web","reason":"end-of-tier","rule":1}`:                     `{"src_pod":"prod/web","reason":"end-of-tier","rule":1}`,
		"api_key=abc&x=1": "api_key=REDACTED",
	} {
		if got := string(Redact([]byte(text))); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
	if got := string(Unquote([]byte(`{"Message":"selector \"app == 'x'\" does not parse"}`))); got != `{"Message":"selector \"…\" does not parse"}` {
		t.Error(got)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add([]byte(`{"token":"a"} Bearer abcdefg https://u:p@h`))
	f.Add([]byte("password='"))
	f.Fuzz(func(t *testing.T, text []byte) {
		// A token of a service account goes, whatever stands around it.
		const token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzYSJ9.AAAAAAAA"
		around := append(append(bytes.Clone(text), " "+token+" "...), text...)
		if got := Redact(around); bytes.Contains(got, []byte("eyJzdWIiOiJzYSJ9")) {
			t.Errorf("%q", got)
		}
	})
}

func TestArchive(t *testing.T) {
	t.Parallel()
	a := Archive{Values: true}
	a.Text("b.txt", []byte("token: hunter2"))
	a.JSON("a.json", map[string]string{"message": `label "v" <x>`})
	a.JSON("bad.json", func() {})
	a.Note("c.txt", errors.New("password=hunter2 refused"))
	a.Text("long.txt", append([]byte("gone"), bytes.Repeat([]byte(".\n"), maxFile/2)...))
	at := time.Date(2026, 11, 25, 9, 0, 0, 0, time.UTC)
	var b [2]bytes.Buffer
	for i := range b {
		if err := a.Write(&b[i], "dir", at); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(b[0].Bytes(), b[1].Bytes()) {
		t.Error("two archives of the same differ")
	}
	z, err := gzip.NewReader(&b[0])
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o600 || !h.ModTime.Equal(at) {
			t.Errorf("%s: mode %o, time %v", h.Name, h.Mode, h.ModTime)
		}
		names = append(names, h.Name)
		got[h.Name] = string(text)
	}
	if d := cmp.Diff([]string{"dir/a.json", "dir/b.txt", "dir/long.txt", "dir/notes.txt"}, names); d != "" {
		t.Error(d)
	}
	if n := len(got["dir/long.txt"]); n != maxFile {
		t.Errorf("%d bytes of a long file", n)
	}
	delete(got, "dir/long.txt")
	if d := cmp.Diff(map[string]string{
		"dir/a.json":    "{\n  \"message\": \"label \\\"…\\\" <x>\"\n}\n",
		"dir/b.txt":     "token: REDACTED",
		"dir/notes.txt": "What is not in this archive, and why:\nbad.json: json: unsupported type: func()\nc.txt: password=REDACTED refused\nlong.txt: the first 4 bytes are left out\n",
	}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
