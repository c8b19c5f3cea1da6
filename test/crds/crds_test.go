package crds

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/postern-project/postern/test/admission"
	"github.com/postern-project/postern/test/apiserver"
	"github.com/postern-project/postern/test/vectors"
)

var server *apiserver.Server

func TestMain(m *testing.M) { os.Exit(apiserver.Main(m, &server)) }

var install = sync.OnceValue(func() error { return server.Apply(context.Background(), "../../deploy/crds") })

// setup installs the definitions, and gives a client.
func setup(t *testing.T) *apiserver.Client {
	t.Helper()
	if err := install(); err != nil {
		t.Fatal(err)
	}
	c, err := apiserver.NewClient(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// admit asks the API server for its opinion on a manifest, as kubectl would, without
// keeping the object. Ours tells whether the definition of the kind is ours.
func admit(t *testing.T, c *apiserver.Client, text string) (ours bool, err error) {
	t.Helper()
	objects, err := apiserver.Parse([]byte(text))
	if err != nil || len(objects) != 1 {
		t.Fatalf("test manifest: %v\n%.200s", err, text)
	}
	o := objects[0]
	if !strings.HasPrefix(o.GetAPIVersion(), "projectcalico.org/") {
		return false, nil
	}
	if err := namespaces(t.Context(), c, o.GetNamespace()); err != nil {
		t.Fatal(err)
	}
	r, err := c.Resource(o)
	if err != nil {
		t.Fatal(err)
	}
	if name := o.GetKind(); strings.Contains(name, "Global") || name == "Tier" || name == "Profile" || name == "HostEndpoint" {
		o.SetNamespace("")
	}
	_, err = r.Create(t.Context(), o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	return true, err
}

func namespaces(ctx context.Context, c *apiserver.Client, names ...string) error {
	for _, name := range names {
		if name == "" {
			continue
		}
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
		if err := c.Apply(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// unseen are the mistakes that a schema cannot see, and why. They are left to the
// converter.
var unseen = map[string]string{
	"net in mapped form":           "see prefix in deploy/crdgen",
	"rule annotation key":          "1024 rules of any number of annotations are too much for the budget of validations",
	"set with the namespace label": "a schema does not see labels",
}

// TestRejected: what the converter refuses, the API server refuses before, except
// for what a schema cannot see.
func TestRejected(t *testing.T) {
	c := setup(t)
	found := map[string]bool{}
	for _, test := range admission.Rejected {
		ours, err := admit(t, c, test.Text())
		switch {
		case !ours:
		case err == nil:
			found[test.Title] = true
			if unseen[test.Title] == "" {
				t.Errorf("%s: not refused", test.Title)
			}
		case !apierrors.IsInvalid(err) && !apierrors.IsBadRequest(err):
			t.Errorf("%s: %v", test.Title, err)
		}
	}
	for _, title := range slices.Sorted(maps.Keys(unseen)) {
		if !found[title] {
			t.Errorf("%s: is refused, or not tried; it need not be excused", title)
		}
	}
}

// TestAccepted: what is valid is not refused.
func TestAccepted(t *testing.T) {
	c := setup(t)
	for _, test := range admission.Accepted {
		if _, err := admit(t, c, test.Text()); err != nil {
			t.Errorf("%s: %.500v", test.Title, err)
		}
	}
}

// TestVectors: the conformance vectors hold thousands of policies; admission must
// agree with each vector on whether its objects are valid.
func TestVectors(t *testing.T) {
	c := setup(t)
	paths, err := filepath.Glob("../vectors/testdata/[^w]*")
	if err != nil {
		t.Fatal(err)
	}
	files, err := vectors.Load(paths...)
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	for _, f := range files {
		for _, v := range f.Vectors {
			for _, s := range append([]vectors.Step{v.Step}, v.Steps...) {
				for _, o := range s.Objects {
					text, err := o.Text()
					if err != nil {
						t.Fatal(err)
					}
					if s.Reject || s.NoValidate || tried[text] {
						continue
					}
					tried[text] = true
					if _, err := admit(t, c, text); err != nil {
						t.Errorf("%s: %v: %.500v", v.ID, o, err)
					}
				}
			}
		}
	}
	if len(tried) < 500 {
		t.Errorf("only %d objects found", len(tried))
	}
}
