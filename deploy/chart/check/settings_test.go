package check

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// ofTheChart are settings that other values, or the manifest, say.
var ofTheChart = []string{"source", "kubeconfig", "node", "socket", "metricsListen", "healthListen", "authzSocket", "authzSocketGroup", "authzTrustDomain"}

// reference gives every setting with its default.
func reference(t *testing.T) values {
	t.Helper()
	v := values{}
	for _, m := range regexp.MustCompile(`(?m)^#([a-zA-Z]+): (.*)$`).FindAllStringSubmatch(string(read(t, "postern.yaml")), -1) {
		maps.Copy(v, parse(t, m[1]+": "+m[2]))
	}
	if len(v) < 40 {
		t.Fatalf("%d settings", len(v))
	}
	return v
}

// schema is as much of a schema as is asked for here.
type schema struct {
	Properties map[string]schema
}

// TestSchema: it knows the settings of the daemon, and the values that there are.
func TestSchema(t *testing.T) {
	text, err := os.ReadFile(source + "/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	settings := reference(t)
	for _, k := range ofTheChart {
		if _, ok := settings[k]; !ok {
			t.Errorf("there is no setting %s", k)
		}
		delete(settings, k)
	}
	if got, want := slices.Sorted(maps.Keys(s.Properties["config"].Properties)), slices.Sorted(maps.Keys(settings)); !slices.Equal(got, want) {
		t.Errorf("the schema's settings are\n%v, want those of deploy/postern.yaml\n%v", got, want)
	}
	if text, err = os.ReadFile(source + "/values.yaml"); err != nil {
		t.Fatal(err)
	}
	delete(s.Properties, "config")
	delete(s.Properties, "global") // Helm's own, of a chart that has this one within
	v := parse(t, string(text))
	delete(v, "config")
	described(t, "", s, v)
}

// described: values.yaml has what the schema has, as deep as it goes itself.
func described(t *testing.T, at string, s schema, v values) {
	t.Helper()
	for k := range v {
		if _, ok := s.Properties[k]; !ok {
			t.Errorf("%s%s is not in the schema", at, k)
		}
		if in, ok := v[k].(values); ok && at == "" && slices.Contains([]string{"resources", "updateStrategy", "affinity"}, k) {
			continue // Kubernetes's own
		} else if ok && len(s.Properties[k].Properties) > 0 {
			described(t, at+k+".", s.Properties[k], in)
		}
	}
	for k := range s.Properties {
		if _, ok := v[k]; !ok {
			t.Errorf("%s%s is not in values.yaml", at, k)
		}
	}
}

// TestProgram: the program takes what the chart gives it.
func TestProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "postern")
	build := exec.Command("go", "build", "-o", program, "./cmd/postern")
	build.Dir = deploy + ".." // its own module, with its own libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	defaults := reference(t)
	for _, k := range ofTheChart {
		delete(defaults, k)
	}
	text, err := yaml.Marshal(values{"config": defaults})
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]string{"defaults": `{}`, "everything": everything, "settings": variants["settings"], "all settings": string(text)} {
		list := objects(t, parse(t, v))
		set := daemonSet(t, list)
		args := set.Spec.Template.Spec.Containers[0].Args
		if args[0] != "run" {
			t.Fatalf("%s: %q", name, args)
		}
		for _, ip := range []string{"192.0.2.1", "2001:db8::1"} {
			show := []string{"config", "show"}
			for _, a := range args[1:] {
				a = strings.ReplaceAll(a, "$(HOST_IP)", ip)
				if a == "/etc/postern/postern.yaml" {
					a = filepath.Join(t.TempDir(), "postern.yaml")
					data, _, _ := unstructured.NestedString(find(t, list, "ConfigMap").Object, "data", "postern.yaml")
					if err := os.WriteFile(a, []byte(data), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				show = append(show, a)
			}
			out, err := exec.Command(program, show...).CombinedOutput()
			if err != nil {
				t.Errorf("%s: postern %q: %v\n%s", name, show, err, out)
			}
			if name == "everything" && (!strings.Contains(string(out), "flowLog: all\n") || !strings.Contains(string(out), "markMask: 0xff000000\n") || !strings.Contains(string(out), "]:9999")) {
				t.Errorf("the settings are\n%s", out)
			}
		}
	}
}

// daemonSet reads the DaemonSet; a field that it does not have is an error.
func daemonSet(t *testing.T, list []*unstructured.Unstructured) *apps.DaemonSet {
	t.Helper()
	set := &apps.DaemonSet{}
	strict(t, find(t, list, "DaemonSet"), set)
	return set
}

func strict(t *testing.T, o *unstructured.Unstructured, into any) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true); err != nil {
		t.Fatalf("%s: %v", o.GetKind(), err)
	}
}

// TestEverything: each value arrives where it should.
func TestEverything(t *testing.T) {
	list := objects(t, parse(t, everything))
	set := daemonSet(t, list)
	pod := set.Spec.Template.Spec
	c := pod.Containers[0]
	for what, ok := range map[string]bool{
		"name":          set.Name == "guard",
		"image":         strings.HasPrefix(c.Image, "registry.example/postern@sha256:0123") && c.ImagePullPolicy == "Always",
		"pull secret":   pod.ImagePullSecrets[0].Name == "pull",
		"account":       pod.ServiceAccountName == "reader" && find(t, list, "ServiceAccount").GetAnnotations()["a"] == "b",
		"probes":        c.ReadinessProbe.HTTPGet.Path == "/readyz" && c.LivenessProbe.HTTPGet.Path == "/livez" && c.LivenessProbe.HTTPGet.Host == "127.0.0.1",
		"authz":         slices.Contains(c.Args, "other.example") && slices.Equal(c.SecurityContext.Capabilities.Add[1:], []core.Capability{"CHOWN"}),
		"resources":     c.Resources.Limits.Memory().String() == "1Gi",
		"priority":      pod.PriorityClassName == "high",
		"tolerations":   len(pod.Tolerations) == 1 && pod.Tolerations[0].Value == "here",
		"node selector": pod.NodeSelector["kubernetes.io/os"] == "linux",
		"affinity":      pod.Affinity.NodeAffinity != nil,
		"strategy":      set.Spec.UpdateStrategy.Type == apps.OnDeleteDaemonSetStrategyType,
		"grace":         *pod.TerminationGracePeriodSeconds == 30,
		"label":         set.Spec.Template.Labels["team"] == "net",
		"annotation":    set.Spec.Template.Annotations["note"] == "1" && set.Spec.Template.Annotations["checksum/config"] != "",
		"environment":   c.Env[len(c.Env)-1].Name == "GOGC",
		"volumes":       pod.Volumes[len(pod.Volumes)-1].Name == "promises" && c.VolumeMounts[len(c.VolumeMounts)-1].MountPath == "/promises",
		"metrics' port": c.Ports[0].ContainerPort == 9999,
		"kept":          find(t, list, "CustomResourceDefinition").GetAnnotations()["helm.sh/resource-policy"] == "keep",
		"guards":        find(t, list, "ValidatingAdmissionPolicyBinding") != nil,
		"bound to":      subject(t, list) == "reader",
	} {
		if !ok {
			t.Errorf("%s: %+v", what, set)
		}
	}
	var m monitoring.PodMonitor
	strict(t, find(t, list, "PodMonitor"), &m)
	if e := m.Spec.PodMetricsEndpoints[0]; *e.Port != c.Ports[0].Name || e.Interval != "15s" || m.Spec.JobLabel != "app.kubernetes.io/name" || m.Labels["release"] != "prometheus" {
		t.Errorf("%+v", m)
	}
	for k, v := range m.Spec.Selector.MatchLabels {
		if set.Spec.Template.Labels[k] != v {
			t.Errorf("the monitor selects %s=%s", k, v)
		}
	}
	// The alerts ask for this job.
	if set.Spec.Template.Labels[m.Spec.JobLabel] != "postern" || !strings.Contains(string(read(t, "monitoring", "alerts.yaml")), `up{job="postern"}`) {
		t.Errorf("the job is %s", set.Spec.Template.Labels[m.Spec.JobLabel])
	}
	var rule, want monitoring.PrometheusRule
	strict(t, find(t, list, "PrometheusRule"), &rule)
	if err := yaml.UnmarshalStrict(read(t, "monitoring", "alerts.yaml"), &want.Spec); err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, rule.Spec), asJSON(t, want.Spec); got != want || len(rule.Spec.Groups) == 0 {
		t.Errorf("the rules are %s, want %s", got, want)
	}
}

func subject(t *testing.T, list []*unstructured.Unstructured) string {
	t.Helper()
	var b rbac.ClusterRoleBinding
	strict(t, find(t, list, "ClusterRoleBinding"), &b)
	return b.Subjects[0].Name
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
