package access

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	admission "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
)

// guard is the binding that deploy/guards makes.
const guard = "service-accounts.postern"

// ReadDirectory reads the manifests in a directory and those below it. Objects of
// other kinds are passed over.
func ReadDirectory(dir string) (o Objects, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".yml" && filepath.Ext(path) != ".json" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := o.add(text); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	return o, err
}

func (o *Objects) add(text []byte) error {
	documents := apiyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var head metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(document, &head); err != nil {
			return err
		}
		switch head.GroupVersionKind().GroupKind().String() {
		case "Role.rbac.authorization.k8s.io":
			err = read(document, &o.Roles)
		case "ClusterRole.rbac.authorization.k8s.io":
			err = read(document, &o.ClusterRoles)
		case "RoleBinding.rbac.authorization.k8s.io":
			err = read(document, &o.RoleBindings)
		case "ClusterRoleBinding.rbac.authorization.k8s.io":
			err = read(document, &o.ClusterRoleBindings)
		case "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io":
			o.UseGuard = o.UseGuard || head.Name == guard
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", head.Kind, head.Name, err)
		}
	}
}

func read[T any](document []byte, list *[]T) error {
	var one T
	if err := yaml.UnmarshalStrict(document, &one); err != nil {
		return err
	}
	*list = append(*list, one)
	return nil
}

// ReadCluster reads from the API server of a kubeconfig file.
func ReadCluster(ctx context.Context, kubeconfig string) (Objects, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return Objects{}, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return readCluster(ctx, config)
}

func readCluster(ctx context.Context, config *rest.Config) (o Objects, err error) {
	roles, err := rbacclient.NewForConfig(config)
	if err != nil {
		return o, err
	}
	guards, err := admission.NewForConfig(config)
	if err != nil {
		return o, err
	}
	all := metav1.ListOptions{}
	r, err1 := roles.Roles("").List(ctx, all)
	cr, err2 := roles.ClusterRoles().List(ctx, all)
	rb, err3 := roles.RoleBindings("").List(ctx, all)
	crb, err4 := roles.ClusterRoleBindings().List(ctx, all)
	g, err5 := guards.ValidatingAdmissionPolicyBindings().List(ctx, all)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return o, err
	}
	for i := range g.Items {
		o.UseGuard = o.UseGuard || g.Items[i].Name == guard
	}
	o.Roles, o.ClusterRoles, o.RoleBindings, o.ClusterRoleBindings = r.Items, cr.Items, rb.Items, crb.Items
	return o, nil
}
