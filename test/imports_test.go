// Package test holds what is checked of the project as a whole.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/postern-project/postern/"

// mayImport lists, for every package below cmd and test, the packages of ours that
// it may import. Two streams meet in filter: policy comes down from the cluster,
// packets come up from the kernel, and filter knows neither.
var mayImport = map[string][]string{
	"deploy/crdgen": {},

	"k8ssync/access": {"filter/explain", "filter/flow", "filter/policy", "filter/policy/selector", "k8ssync", "k8ssync/convert", "k8ssync/file"},

	"filter/flow":            {},
	"internal/keeper":        {},
	"internal/bundle":        {},
	"internal/doctor":        {"filter", "filter/nfq", "filter/nft"},
	"internal/notify":        {},
	"internal/settings":      {},
	"internal/latency":       {},
	"filter/hostlink":        {},
	"filter/nft":             {},
	"filter/capture":         {},
	"filter/policy/selector": {},
	"trie":                   {},

	"conntrack":     {"filter/flow"},
	"filter":        {"filter/flow", "trie"},
	"filter/packet": {"filter/flow"},
	"filter/policy": {"filter/flow", "filter/policy/selector"},

	"filter/compile": {"filter", "filter/flow", "filter/policy", "filter/policy/selector", "trie"},
	// The explainer is the oracle of compiler and engine: its independence is its
	// worth.
	"filter/explain": {"filter/flow", "filter/policy", "filter/policy/selector"},
	"filter/flowlog": {"filter", "filter/flow"},
	"k8ssync":        {"filter/policy", "trie"},

	"filter/unixsocket": {},
	"filter/authz":      {"filter", "filter/flow", "filter/flowlog", "filter/unixsocket", "internal/latency"},

	"filter/observe":   {"filter", "filter/flow", "filter/flowlog"},
	"filter/control":   {"filter", "filter/flow", "filter/flowlog", "filter/live", "filter/observe", "filter/policy", "filter/unixsocket"},
	"filter/assertion": {"filter", "filter/compile", "filter/explain", "filter/flow", "filter/policy", "filter/policy/selector"},
	"filter/diff":      {"filter", "filter/compile", "filter/explain", "filter/flow", "filter/policy", "filter/policy/selector"},
	"filter/dataplane": {"conntrack", "filter", "filter/compile", "filter/flow", "filter/nfq", "filter/nft", "filter/policy"},
	"filter/live":      {"conntrack", "filter", "filter/flow", "filter/nft"},
	"filter/inventory": {"filter/explain", "filter/flow", "filter/policy", "filter/policy/selector"},
	"filter/lint":      {"filter/explain", "filter/flow", "filter/policy", "filter/policy/selector"},
	"filter/speed":     {"filter", "filter/flow", "filter/packet", "filter/policy", "filter/policy/selector", "filter/replay"},
	"filter/replay":    {"filter", "filter/capture", "filter/explain", "filter/flow", "filter/packet", "filter/policy"},
	"filter/nfq":       {"filter", "filter/flow", "filter/flowlog", "filter/packet", "internal/latency"},
	"filter/metrics":   {"filter/control"},
	"k8ssync/convert":  {"filter/flow", "filter/policy", "filter/policy/selector"},

	"k8ssync/file":  {"filter/policy", "k8ssync", "k8ssync/convert"},
	"k8ssync/kube":  {"filter/policy", "k8ssync", "k8ssync/convert"},
	"k8ssync/saved": {"filter/policy"},
}

// doors lists, for outside libraries, the packages through which they enter. A
// library is named by the beginning of its import path.
var doors = map[string][]string{
	"github.com/armon/go-radix":               {"trie"},
	"github.com/florianl/go-nfqueue":          {"filter/nfq"},
	"github.com/ti-mo/":                       {"conntrack"},
	"github.com/google/nftables":              {"filter/nft"},
	"github.com/mdlayher/netlink":             {"conntrack", "filter/nfq", "filter/nft"},
	"github.com/projectcalico/api":            {"deploy/crdgen", "k8ssync/convert", "k8ssync/file"},
	"k8s.io/":                                 {"k8ssync/access", "deploy/crdgen", "k8ssync/convert", "k8ssync/file", "k8ssync/kube", "test/apiserver", "test/node"},
	"k8s.io/client-go":                        {"k8ssync/access", "k8ssync/kube", "test/apiserver", "test/node"},
	"github.com/go-logr/logr":                 {"k8ssync/kube"},
	"sigs.k8s.io/":                            {"k8ssync/access", "deploy/crdgen", "k8ssync/convert", "k8ssync/file", "test/vectors"},
	"github.com/rs/zerolog":                   {"filter/flowlog", "filter/live", "k8ssync/file", "k8ssync/kube", "k8ssync/saved", "internal/keeper", "cmd/postern"},
	"github.com/google/gopacket":              {"filter/capture", "test/lab"},
	"github.com/vishvananda/":                 {"cmd/postern", "filter/hostlink", "internal/doctor", "test/lab"},
	"google.golang.org/grpc":                  {"filter/authz", "test/vectors"},
	"google.golang.org/protobuf":              {"filter/authz", "k8ssync/kube", "test/proxy"},
	"google.golang.org/genproto":              {"filter/authz"},
	"github.com/envoyproxy/":                  {"filter/authz", "test/proxy", "test/vectors"},
	"github.com/spiffe/":                      {"filter/authz", "test/proxy"},
	"pgregory.net/rapid":                      {"test/worlds"},
	"github.com/spf13/cobra":                  {"cmd/postern"},
	"github.com/spf13/pflag":                  {"cmd/postern", "internal/settings"},
	"go.yaml.in/yaml/v3":                      {"internal/settings"},
	"github.com/fsnotify/fsnotify":            {"k8ssync/file"},
	"golang.org/x/sys/unix":                   {"cmd/postern", "conntrack", "filter/hostlink", "filter/nfq", "filter/nft", "filter/speed", "internal/doctor", "internal/keeper", "internal/notify", "k8ssync/file", "test/apiserver", "test/kubernetes", "test/lab", "test/systemd", "filter/unixsocket"},
	"unsafe":                                  {"filter/compile", "filter/nfq", "internal/keeper", "trie"},
	"net/http":                                {"filter/control", "filter/metrics", "k8ssync/kube", "test/proxy", "cmd/postern"},
	"github.com/prometheus/":                  {"filter/metrics"},
	"log":                                     {},
	"log/slog":                                {},
	"github.com/postern-project/postern/test": {"test", "cmd/postern"},
}

type listed struct {
	ImportPath string
	Imports    []string // without those of tests
}

func packages(t *testing.T) (ps []listed) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		ps = append(ps, p)
	}
	if len(ps) < len(mayImport) {
		t.Fatalf("go list found %d packages", len(ps))
	}
	return ps
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		top, _, _ := strings.Cut(p.ImportPath, "/")
		allowed, known := mayImport[p.ImportPath]
		if !known && top != "cmd" && top != "test" {
			t.Errorf("%s has no line in mayImport: decide what it may import", p.ImportPath)
		}
		for _, i := range p.Imports {
			if own, ok := strings.CutPrefix(i, module); ok && known && !slices.Contains(allowed, own) {
				t.Errorf("%s imports %s, which its line in mayImport does not name", p.ImportPath, own)
			}
			for library, through := range doors {
				if !within(i, library) {
					continue
				}
				if !slices.ContainsFunc(through, func(door string) bool { return within(p.ImportPath, door) }) {
					t.Errorf("%s imports %s, which enters through %v only", p.ImportPath, i, through)
				}
			}
		}
	}
}

// within tells whether path is prefix or below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}
