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

// asker asks the API server what users may do, each question once.
type asker struct {
	set   *kubernetes.Clientset
	known map[string]bool
}

func newAsker(t *testing.T) *asker {
	t.Helper()
	set, err := kubernetes.NewForConfig(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	return &asker{set, map[string]bool{}}
}

func (a *asker) may(t *testing.T, user string, r Right) bool {
	t.Helper()
	key := fmt.Sprintf("%q %q", user, r)
	if is, ok := a.known[key]; ok {
		return is
	}
	resource, sub, _ := strings.Cut(r.Resource, "/")
	review, err := a.set.AuthorizationV1().SubjectAccessReviews().Create(context.Background(), &authorization.SubjectAccessReview{
		Spec: authorization.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorization.ResourceAttributes{
			Verb: r.Verb, Group: r.Group, Resource: resource, Subresource: sub, Namespace: r.Namespace, Name: r.Name}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.known[key] = review.Status.Allowed
	return review.Status.Allowed
}

// wait waits for a right: the API server reads roles through a watch of its own.
func (a *asker) wait(t *testing.T, user string, r Right) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !a.may(t, user, r); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s may not %s: the roles have no effect", user, r)
		}
		clear(a.known)
	}
}

// TestAgrees: what Find tells of a user is what the API server answers when it is
// asked right by right, for each user and each way, and offline from the same
// manifests the result is the same.
func TestAgrees(t *testing.T) {
	if err := server.Apply(t.Context(), "testdata"); err != nil {
		t.Fatal(err)
	}
	ask := newAsker(t)
	ask.wait(t, "last", Right{Verb: "create", Resource: "pods", Namespace: "shop"})
	cluster, _, err := readCluster(t.Context(), server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	offline, _, err := ReadDirectory("testdata")
	if err != nil {
		t.Fatal(err)
	}
	users := map[string]string{
		"User last": "last", "User deployer": "deployer", "User namer": "namer", "User other": "other", "User everything": "everything",
		"User labeller": "labeller", "User policies": "policies", "User binder": "binder", "User nobody": "nobody", "User execs": "execs",
		"User local": "local", "User applier": "applier",
		"ServiceAccount shop/robot": "system:serviceaccount:shop:robot",
	}
	// Names that roles limit rights to, and one that none does.
	names := []string{"any-other-name", "web-sa", "shop", "p"}
	for _, on := range []bool{false, true} {
		yes, no := 0, 0
		for source, objects := range map[string]Objects{"cluster": cluster, "offline": offline} {
			objects.UseGuard, objects.TierGuard = Guard{Policy: on, Bound: on}, Guard{Policy: on, Bound: on}
			ways := list(AccountWays(&objects, Account{"shop", "web-sa"}))
			ways.guards(&objects)
			ways.grants(&objects, ways)
			ways.becomes(&objects, []Subject{{"User", "", "last"}, {"Group", "", "system:masters"}, {"ServiceAccount", "shop", "robot"}})
			for _, w := range ways {
				found := map[string]bool{}
				for _, f := range Find(&objects, []Way{w}) {
					found[f.Subject.String()] = true
				}
				for subject, user := range users {
					want := slices.ContainsFunc(w.Places, func(p Place) bool {
						return slices.ContainsFunc(names, func(name string) bool {
							return !slices.ContainsFunc(w.Rights, func(r Right) bool { return !ask.may(t, user, r.at(p, name)) })
						})
					})
					if found[subject] != want {
						t.Errorf("%s, guards %v: %s: %s %v: told %v, and the API server says %v", source, on, subject, w.What, w.Rights, found[subject], want)
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

// TestUseGuard: the guard asks for one more right, and is found in manifests.
func TestUseGuard(t *testing.T) {
	o, _, err := ReadDirectory("../../deploy/guards")
	if err != nil {
		t.Fatal(err)
	}
	if !o.UseGuard.On() || !o.TierGuard.On() || len(o.warnings()) > 0 {
		t.Errorf("the guards were not found: %+v", o)
	}
	o, _, err = ReadDirectory("testdata")
	if err != nil {
		t.Fatal(err)
	}
	runs := func(guard Guard) (who []string) {
		o.UseGuard = guard
		for _, f := range Find(&o, AccountWays(&o, Account{"shop", "web-sa"})) {
			if f.What == "run a pod with the account" && !slices.Contains(who, f.Subject.Name) {
				who = append(who, f.Subject.Name)
			}
		}
		return who
	}
	if got := runs(Guard{}); !slices.Equal(got, []string{"robot", "applier", "deployer", "everything", "last"}) {
		t.Errorf("without the guard %v", got)
	}
	if got := runs(Guard{Policy: true, Bound: true}); !slices.Equal(got, []string{"deployer", "everything"}) {
		t.Errorf("with the guard %v", got)
	}
}
