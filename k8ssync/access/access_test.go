package access

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/postern-project/postern/test/apiserver"
)

var server *apiserver.Server

func TestMain(m *testing.M) { os.Exit(apiserver.Main(m, &server)) }

// TestAgrees: what Find tells of a user is what the API server answers when it is
// asked right by right, for each user and each action, and offline from the same
// manifests the result is the same.
func TestAgrees(t *testing.T) {
	if err := server.Apply(t.Context(), "testdata"); err != nil {
		t.Fatal(err)
	}
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	may := func(user string, r Right) bool {
		resource, sub, _ := strings.Cut(r.Resource, "/")
		review, err := set.AuthorizationV1().SubjectAccessReviews().Create(context.Background(), &authorization.SubjectAccessReview{
			Spec: authorization.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorization.ResourceAttributes{
				Verb: r.Verb, Group: r.Group, Resource: resource, Subresource: sub, Namespace: r.Namespace, Name: r.Name}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return review.Status.Allowed
	}
	// The API server reads roles through a watch of its own.
	for deadline := time.Now().Add(time.Minute); !may("last", Right{Verb: "create", Resource: "pods", Namespace: "shop"}); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the roles have no effect")
		}
	}
	cluster, err := readCluster(t.Context(), server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	offline, err := ReadDirectory("testdata")
	if err != nil {
		t.Fatal(err)
	}
	users := map[string]string{
		"User last": "last", "User deployer": "deployer", "User namer": "namer", "User other": "other", "User everything": "everything",
		"User labeller": "labeller", "User policies": "policies", "User binder": "binder", "User nobody": "nobody", "User execs": "execs",
		"ServiceAccount shop/robot": "system:serviceaccount:shop:robot",
	}
	for _, useGuard := range []bool{false, true} {
		yes, no := 0, 0
		actions := Actions(Account{"shop", "web-sa"}, useGuard)
		for name, objects := range map[string]Objects{"cluster": cluster, "offline": offline} {
			found := map[string]bool{}
			for _, f := range Find(objects, actions) {
				found[f.Subject.String()+fmt.Sprint(f.Rights)] = true
			}
			for subject, user := range users {
				for _, a := range actions {
					var rights []string
					want := true
					for _, r := range a.All {
						rights = append(rights, r.String())
						want = want && may(user, r)
					}
					if got := found[subject+fmt.Sprint(rights)]; got != want {
						t.Errorf("%s: %s: %s %v: told %v, and the API server says %v", name, subject, a.What, rights, got, want)
					}
					if want {
						yes++
					} else {
						no++
					}
				}
			}
		}
		if yes < 20 || no < 20 {
			t.Errorf("%d rights given and %d not: the test tells little", yes, no)
		}
	}
}

// TestGuard: the guard asks for one more right, and is found in manifests.
func TestGuard(t *testing.T) {
	o, err := ReadDirectory("../../deploy/guards")
	if err != nil {
		t.Fatal(err)
	}
	if !o.UseGuard {
		t.Error("the guard was not found")
	}
	o, err = ReadDirectory("testdata")
	if err != nil {
		t.Fatal(err)
	}
	runs := func(useGuard bool) (who []string) {
		for _, f := range Find(o, Actions(Account{"shop", "web-sa"}, useGuard)) {
			if f.What == "run a pod with the account" && !slices.Contains(who, f.Subject.Name) {
				who = append(who, f.Subject.Name)
			}
		}
		return who
	}
	if got := runs(false); !slices.Equal(got, []string{"robot", "deployer", "everything", "last"}) {
		t.Errorf("without the guard %v", got)
	}
	if got := runs(true); !slices.Equal(got, []string{"deployer", "everything"}) {
		t.Errorf("with the guard %v", got)
	}
}
