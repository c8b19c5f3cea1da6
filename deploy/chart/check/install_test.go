package check

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/action"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-project/postern/test/apiserver"
)

// helm does what the program does, in namespace postern of the API server.
type helm struct {
	*testing.T
	client *apiserver.Client
	log    bytes.Buffer
}

func newHelm(t *testing.T) *helm {
	t.Helper()
	h := &helm{T: t}
	var err error
	if h.client, err = apiserver.NewClient(server.Admin()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(h.log.String())
		}
	})
	return h
}

func (h *helm) configuration() *action.Configuration {
	h.Helper()
	path, err := server.Kubeconfig("")
	if err != nil {
		h.Fatal(err)
	}
	env := cli.New()
	env.KubeConfig = path
	env.SetNamespace("postern")
	c := action.NewConfiguration(action.ConfigurationSetLogger(slog.NewTextHandler(&h.log, nil)))
	if err := c.Init(env.RESTClientGetter(), "postern", "secret"); err != nil {
		h.Fatal(err)
	}
	return c
}

const minute = time.Minute

// versionless takes what the chart demands of the cluster's version away: the tests' API
// server is built without one.
func versionless(c *chart.Chart) *chart.Chart {
	c.Metadata.KubeVersion = ""
	return c
}

// install installs the chart after a change to its files.
func (h *helm) install(v values, change func(name string, data []byte) []byte) error {
	h.Helper()
	i := action.NewInstall(h.configuration())
	i.ReleaseName, i.Namespace, i.CreateNamespace, i.Timeout, i.WaitStrategy = "postern", "postern", true, minute, kube.HookOnlyStrategy
	c := versionless(load(h.T))
	for _, f := range c.Files {
		if change != nil {
			f.Data = change(f.Name, f.Data)
		}
	}
	_, err := i.Run(c, v)
	return err
}

func (h *helm) upgrade(v values) {
	h.Helper()
	u := action.NewUpgrade(h.configuration())
	u.Namespace, u.Timeout, u.WaitStrategy = "postern", minute, kube.HookOnlyStrategy
	if _, err := u.Run("postern", versionless(load(h.T)), v); err != nil {
		h.Fatal(err)
	}
}

func (h *helm) rollback(revision int) {
	h.Helper()
	r := action.NewRollback(h.configuration())
	r.Version, r.Timeout, r.WaitStrategy = revision, minute, kube.HookOnlyStrategy
	if err := r.Run("postern"); err != nil {
		h.Fatal(err)
	}
}

func (h *helm) uninstall() {
	h.Helper()
	u := action.NewUninstall(h.configuration())
	u.Timeout, u.WaitStrategy = minute, kube.HookOnlyStrategy
	if _, err := u.Run("postern"); err != nil {
		h.Fatal(err)
	}
}

// get gives an object as the API server has it, nil if it has none.
func (h *helm) get(apiVersion, kind, name string) *unstructured.Unstructured {
	h.Helper()
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace("postern")
	r, err := h.client.Resource(o)
	if err != nil {
		h.Fatal(err)
	}
	is, err := r.Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		h.Fatal(err)
	}
	return is
}

func (h *helm) expect(apiVersion, kind, name string, want bool) {
	h.Helper()
	if is := h.get(apiVersion, kind, name); (is != nil) != want {
		h.Errorf("%s %s is there: %v, want %v", kind, name, is != nil, want)
	}
}

// image is that of the daemon.
func (h *helm) image() string {
	h.Helper()
	set := h.get("apps/v1", "DaemonSet", "postern")
	if set == nil {
		h.Fatal("there is no DaemonSet")
	}
	return daemonSet(h.T, []*unstructured.Unstructured{set}).Spec.Template.Spec.Containers[0].Image
}

// knowsNets tells whether the installed definition of global network sets has the field
// nets.
func (h *helm) knowsNets() bool {
	h.Helper()
	crd := h.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", "globalnetworksets.projectcalico.org")
	if crd == nil {
		h.Fatal("global network sets are not defined")
	}
	return strings.Contains(fmt.Sprint(crd.Object), "nets:map[")
}

const (
	adm   = "admissionregistration.k8s.io/v1"
	roles = "rbac.authorization.k8s.io/v1"
)

// TestInstall takes a release through its life in a real API server: definitions are
// upgraded and go back with it, and stay when it goes, with all policy.
func TestInstall(t *testing.T) {
	h := newHelm(t)
	all := `{crds: {install: true}, guards: {tiers: true, serviceAccounts: true}, roles: {create: true}, image: {tag: "1"}}`
	// An earlier version, which did not know what is in a set.
	earlier := func(name string, data []byte) []byte {
		if strings.HasSuffix(name, "projectcalico.org_globalnetworksets.yaml") {
			was := data
			if data = bytes.ReplaceAll(was, []byte("              nets:\n"), []byte("              prefixes:\n")); bytes.Equal(was, data) {
				t.Fatalf("sets have no nets:\n%s", data)
			}
		}
		return data
	}
	if err := h.install(parse(t, all), earlier); err != nil {
		t.Fatal(err)
	}
	if got := h.image(); got != "postern:1" || h.knowsNets() {
		t.Errorf("image %s, nets %v", got, h.knowsNets())
	}
	h.expect("v1", "ServiceAccount", "postern", true)
	h.expect("v1", "ConfigMap", "postern", false)
	for _, name := range []string{"tiers.postern", "service-accounts.postern"} {
		h.expect(adm, "ValidatingAdmissionPolicy", name, true)
		h.expect(adm, "ValidatingAdmissionPolicyBinding", name, true)
	}
	for _, name := range []string{"postern", "postern-security", "postern-developer"} {
		h.expect(roles, "ClusterRole", name, true)
	}
	if err := server.ApplyYAML(t.Context(), "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: office}\nspec: {prefixes: [192.0.2.0/24]}\n"); err != nil {
		t.Fatal(err)
	}

	h.upgrade(parse(t, `{crds: {install: true}, guards: {tiers: true}, image: {tag: "2"}, config: {flowLog: all}}`))
	if got := h.image(); got != "postern:2" || !h.knowsNets() {
		t.Errorf("upgraded: image %s, nets %v", got, h.knowsNets())
	}
	h.expect("v1", "ConfigMap", "postern", true)
	h.expect(adm, "ValidatingAdmissionPolicy", "tiers.postern", true)
	h.expect(adm, "ValidatingAdmissionPolicy", "service-accounts.postern", false)
	h.expect(roles, "ClusterRole", "postern-security", false)

	// Definitions may be left to somebody else: they stay.
	h.upgrade(parse(t, `{image: {tag: "3"}}`))
	if got := h.image(); got != "postern:3" || !h.knowsNets() {
		t.Errorf("without definitions: image %s, nets %v", got, h.knowsNets())
	}
	h.rollback(1)
	if got := h.image(); got != "postern:1" || h.knowsNets() {
		t.Errorf("rolled back: image %s, nets %v", got, h.knowsNets())
	}
	h.expect("v1", "ConfigMap", "postern", false)
	h.expect(adm, "ValidatingAdmissionPolicy", "service-accounts.postern", true)

	h.uninstall()
	h.expect("apps/v1", "DaemonSet", "postern", false)
	h.expect("v1", "ServiceAccount", "postern", false)
	h.expect(roles, "ClusterRole", "postern", false)
	h.expect(roles, "ClusterRoleBinding", "postern", false)
	h.expect(adm, "ValidatingAdmissionPolicy", "tiers.postern", false)
	h.expect("projectcalico.org/v3", "GlobalNetworkSet", "office", true)

	// Installed again it takes over the definitions that were kept.
	if err := h.install(parse(t, all), nil); err != nil {
		t.Fatal(err)
	}
	if !h.knowsNets() {
		t.Error("the definition that was kept is not upgraded")
	}
	h.expect("projectcalico.org/v3", "GlobalNetworkSet", "office", true)
	h.uninstall()
}

// TestForeignDefinitions: definitions that somebody else installed are not taken over,
// nor removed with the release.
func TestForeignDefinitions(t *testing.T) {
	h := newHelm(t)
	const name = "networksets.projectcalico.org"
	crd := find(t, kustomized(t, "crds"), "CustomResourceDefinition")
	r, err := h.client.Resource(crd)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(minute); h.get(crd.GetAPIVersion(), crd.GetKind(), name) != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the definition stays")
		}
	}
	if err := server.Apply(t.Context(), deploy+"crds/projectcalico.org_networksets.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := h.install(parse(t, `{crds: {install: true}}`), nil); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "ownership") {
		t.Errorf("install over definitions of others: %v", err)
	}
	h.expect("apps/v1", "DaemonSet", "postern", false)
	h.expect("apiextensions.k8s.io/v1", "CustomResourceDefinition", name, true)
}
