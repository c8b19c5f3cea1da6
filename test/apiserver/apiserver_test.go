package apiserver

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var server *Server

func TestMain(m *testing.M) { os.Exit(Main(m, &server)) }

func client(t *testing.T, c *rest.Config) *kubernetes.Clientset {
	t.Helper()
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestApply applies manifests written for a directory: the addresses in their
// status have to arrive as well.
func TestApply(t *testing.T) {
	examples := "../../docs/examples/service-accounts/"
	for range 2 { // again: nothing to change
		if err := server.Apply(t.Context(), examples+"namespaces.yaml", examples+"serviceaccounts.yaml", examples+"pods.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	db, err := client(t, server.Admin()).CoreV1().Pods("prod-engineering").Get(t.Context(), "db", get)
	if err != nil {
		t.Fatal(err)
	}
	if db.Spec.ServiceAccountName != "db-sa" || len(db.Status.PodIPs) != 2 || db.Status.PodIP != "10.244.0.10" || db.Status.Phase != "Running" {
		t.Errorf("the pod is %v %v", db.Spec.ServiceAccountName, db.Status)
	}
	err = server.ApplyYAML(t.Context(), "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: prod-engineering}\nspec: {serviceAccountName: nobody}\n")
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a pod with a service account that is not there: %v", err)
	}
}

// TestUsers: rights are those of the user, not of who started the server.
func TestUsers(t *testing.T) {
	if err := server.ApplyYAML(t.Context(), `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: viewers}
rules: [{apiGroups: [""], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: viewers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: viewers}]
`); err != nil {
		t.Fatal(err)
	}
	list := func(c *rest.Config) error {
		_, err := client(t, c).CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		return err
	}
	// The API server reads roles through a watch of its own.
	eventually(t, func() error { return list(server.As("jane", "viewers")) })
	for _, user := range []string{"jane", "system:serviceaccount:default:robot"} {
		if err := list(server.As(user)); !apierrors.IsForbidden(err) {
			t.Errorf("%s, who has no right to: %v", user, err)
		}
	}
	for user, allowed := range map[string]bool{"": true, "jane": false} {
		path, err := server.Kubeconfig(user)
		if err != nil {
			t.Fatal(err)
		}
		c, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := list(c); (err == nil) != allowed || err != nil && !apierrors.IsForbidden(err) {
			t.Errorf("kubeconfig of %q: %v", user, err)
		}
	}
}

// TestContinue: the same server at the same address with the same data.
func TestContinue(t *testing.T) {
	set := client(t, server.Admin())
	if err := server.ApplyYAML(t.Context(), "apiVersion: v1\nkind: Namespace\nmetadata: {name: kept}\n"); err != nil {
		t.Fatal(err)
	}
	for name, stop := range map[string]func() error{"stop": server.Stop, "kill": server.Kill} {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := set.CoreV1().Namespaces().Get(t.Context(), "kept", get); err == nil {
			t.Errorf("%s: the server answers", name)
		}
		if err := server.Continue(); err != nil {
			t.Fatal(err)
		}
		if _, err := set.CoreV1().Namespaces().Get(t.Context(), "kept", get); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAbandoned: a killed process leaves no program running, and no directory once
// another has started.
func TestAbandoned(t *testing.T) {
	if os.Getenv("POSTERN_TEST_ABANDON") != "" {
		d, err := newDirectory()
		if err != nil {
			t.Fatal(err)
		}
		p, err := start(filepath.Join(d.path, "log"), "sleep", "1000")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(d.path, p.cmd.Process.Pid)
		select {} // until it is killed
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestAbandoned$")
	cmd.Env = append(os.Environ(), "POSTERN_TEST_ABANDON=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var pid int
	for sc := bufio.NewScanner(out); sc.Scan(); {
		if n, _ := fmt.Sscan(sc.Text(), &dir, &pid); n == 2 {
			break
		}
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the program does not run: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, func() error {
		if err := syscall.Kill(pid, 0); err == nil {
			return errors.New("the program has outlived its parent")
		}
		return nil
	})
	d, err := newDirectory()
	if err != nil {
		t.Fatal(err)
	}
	defer d.remove()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory %s of a dead process: %v", dir, err)
	}
	if _, err := os.Stat(server.dir.path); err != nil {
		t.Errorf("a directory in use: %v", err)
	}
}

// eventually waits until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
