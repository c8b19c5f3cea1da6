package check

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/postern-project/postern/test/apiserver"
)

// values are those of a chart.
type values = map[string]any

const (
	source = "../postern"
	deploy = "../../"
)

var (
	packaged string // the chart's archive
	server   *apiserver.Server
)

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelWarn) // that links are followed is meant
	dir, err := os.MkdirTemp("", "postern-chart-")
	if err == nil {
		// What its links lead to has to be in the archive.
		p := action.NewPackage()
		p.Destination = dir
		packaged, err = p.Run(source, nil)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "package the chart:", err)
		os.Exit(1)
	}
	code := apiserver.Main(m, &server)
	os.RemoveAll(dir)
	os.Exit(code)
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.LoadFile(packaged)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cluster is what a rendering is told of the cluster.
type cluster struct {
	version string // of Kubernetes; by default 1.34
	serves  []string
}

// render is what "helm template" does.
func render(t *testing.T, v values, in cluster) (*release.Release, error) {
	t.Helper()
	i := action.NewInstall(action.NewConfiguration())
	i.DryRunStrategy, i.ReleaseName, i.Namespace = action.DryRunClient, "postern", "postern"
	if in.version == "" {
		in.version = "v1.34.0"
	}
	var err error
	if i.KubeVersion, err = common.ParseKubeVersion(in.version); err != nil {
		t.Fatal(err)
	}
	i.APIVersions = in.serves
	r, err := i.Run(load(t), v)
	if err != nil {
		return nil, err
	}
	return r.(*release.Release), nil
}

func objects(t *testing.T, v values) []*unstructured.Unstructured {
	t.Helper()
	r, err := render(t, v, cluster{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := apiserver.Parse([]byte(r.Manifest))
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Manifest)
	}
	return list
}

// parse reads values as a file has them.
func parse(t *testing.T, text string) values {
	t.Helper()
	v := values{}
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// everything turns everything on.
const everything = `
fullnameOverride: guard
image: {repository: registry.example/postern, digest: "sha256:` + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + `", pullPolicy: Always}
imagePullSecrets: [{name: pull}]
serviceAccount: {name: reader, annotations: {a: b}}
crds: {install: true}
guards: {tiers: true, serviceAccounts: true}
roles: {create: true}
config: {flowLog: all, markMask: 0xff000000, queueLength: 16384, podCidr: [none], holdTime: 3s, verdictCache: 131072}
metrics: {enabled: true, port: 9999, podMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}}, rules: {enabled: true, labels: {release: prometheus}}}
health: {enabled: true}
authz: {enabled: true, trustDomains: [cluster.local, other.example]}
resources: {limits: {memory: 1Gi}}
priorityClassName: high
tolerations: [{key: only, operator: Equal, value: here, effect: NoSchedule}]
nodeSelector: {kubernetes.io/os: linux}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: x, operator: Exists}]}]}}}
updateStrategy: {type: OnDelete}
terminationGracePeriodSeconds: 30
podLabels: {team: net}
podAnnotations: {note: "1"}
extraEnv: [{name: GOGC, value: "50"}]
extraVolumes: [{name: promises, configMap: {name: promises}}]
extraVolumeMounts: [{name: promises, mountPath: /promises}]
`

// variants are values that people may have.
var variants = map[string]string{
	"defaults":                             `{}`,
	"everything":                           everything,
	"bare":                                 `{serviceAccount: {create: false, name: other}, rbac: {create: false}, tolerations: [], priorityClassName: "", resources: {requests: null, limits: null}}`,
	"subchart":                             `{global: {imageRegistry: x}}`,
	"settings":                             `{config: {logLevel: debug}}`,
	"definitions that go with the release": `{crds: {install: true, keep: false}}`,
}

// TestLint: Helm has nothing to say.
func TestLint(t *testing.T) {
	for _, path := range []string{source, packaged} {
		for name, text := range variants {
			l := action.NewLint()
			l.Strict, l.Namespace = true, "postern"
			result := l.Run([]string{path}, parse(t, text))
			if action.HasWarningsOrErrors(result) || result.TotalChartsLinted != 1 {
				t.Errorf("%s, %s: %v %v", path, name, result.Messages, errors.Join(result.Errors...))
			}
		}
	}
}

// TestRefused: what cannot be meant is an error that names the value.
func TestRefused(t *testing.T) {
	calico := cluster{serves: []string{"crd.projectcalico.org/v1"}}
	for _, c := range []struct {
		values string
		in     cluster
		want   string
	}{
		{`{imagee: {}}`, cluster{}, "imagee"},
		{`{image: {tagg: x}}`, cluster{}, "tagg"},
		{`{image: {tag: "a b"}}`, cluster{}, "/image/tag"},
		{`{image: {digest: latest}}`, cluster{}, "/image/digest"},
		{`{image: {pullPolicy: Sometimes}}`, cluster{}, "/image/pullPolicy"},
		{`{config: {flowLogg: all}}`, cluster{}, "flowLogg"},
		{`{config: {flowLog: 7}}`, cluster{}, "/config/flowLog"},
		{`{config: {queueLength: many}}`, cluster{}, "/config/queueLength"},
		{`{config: {kubeconfig: /root/kubeconfig}}`, cluster{}, "kubeconfig"},
		{`{config: {node: n1}}`, cluster{}, "node"},
		{`{config: {metricsListen: ":1"}}`, cluster{}, "metricsListen"},
		{`{crds: {install: "yes"}}`, cluster{}, "/crds/install"},
		{`{guards: {tier: true}}`, cluster{}, "tier"},
		{`{metrics: {port: 70000}}`, cluster{}, "/metrics/port"},
		{`{metrics: {podMonitor: {enabled: true}}}`, cluster{}, "metrics.podMonitor.enabled: there is nothing to scrape"},
		{`{authz: {enabled: true}}`, cluster{}, "authz.trustDomains: say whose certificates count"},
		{`{serviceAccount: {create: false}}`, cluster{}, "serviceAccount.name: say which account"},
		{`{tolerations: [{operatr: Exists}]}`, cluster{}, "operatr"},
		{`{updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}}`, cluster{}, "maxSurge"}, // two do not fit on a node
		{`{nodeSelector: {disk: 1}}`, cluster{}, "/nodeSelector/disk"},
		{`{fullnameOverride: "A_B"}`, cluster{}, "/fullnameOverride"},
		{`{crds: {install: true}}`, calico, "crds.install: this cluster has Calico's own definitions"},
		{`{}`, cluster{version: "v1.29.9"}, "1.30"},
	} {
		if _, err := render(t, parse(t, c.values), c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %+v: %v; want an error with %q", c.values, c.in, err, c.want)
		}
	}
	if _, err := render(t, values{}, calico); err != nil {
		t.Errorf("beside Calico: %v", err)
	}
}

// TestNotes: they say what this installation lacks.
func TestNotes(t *testing.T) {
	for _, c := range []struct {
		values string
		in     cluster
		want   map[string]bool
	}{
		{`{}`, cluster{}, map[string]bool{"crds.install=true": true, "ordinary RBAC holds": true, "rollout status daemonset/postern": true}},
		{`{}`, cluster{serves: []string{"crd.projectcalico.org/v1"}}, map[string]bool{"crds.install=true": false}},
		{everything, cluster{}, map[string]bool{"crds.install=true": false, "ordinary RBAC holds": false, "rollout status daemonset/guard": true}},
	} {
		r, err := render(t, parse(t, c.values), c.in)
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range c.want {
			if strings.Contains(r.Info.Notes, text) != want {
				t.Errorf("%s: %q is there should be %v:\n%s", c.values, text, want, r.Info.Notes)
			}
		}
	}
}

// find gives the one object of a kind.
func find(t *testing.T, list []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	t.Helper()
	i := slices.IndexFunc(list, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind })
	if i < 0 {
		t.Fatalf("there is no %s", kind)
	}
	return list[i]
}

// read reads one file of deploy.
func read(t *testing.T, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{deploy}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
