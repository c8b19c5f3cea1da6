package access

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	admission "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// ReadDirectory reads the manifests in a directory and those below it, lists as
// kubectl prints them too. Objects of other kinds are passed over. The second result
// tells of objects that cannot be used as they are.
func ReadDirectory(dir string) (o Objects, warnings []string, err error) {
	var g guards
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := o.read(text, &g); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		return Objects{}, nil, err
	}
	objects, err := file.Load(dir)
	if err != nil {
		return Objects{}, nil, err
	}
	o.UseGuard, o.TierGuard = g.judge(useGuard), g.judge(tierGuard)
	warnings = o.hold(objects)
	return o, warnings, nil
}

// hold makes the snapshot.
func (o *Objects) hold(objects []k8ssync.Object) (warnings []string) {
	store := k8ssync.NewStore()
	store.Replace(objects)
	o.Snapshot = store.Snapshot()
	for _, p := range store.Problems() {
		warnings = append(warnings, p.Error())
	}
	return warnings
}

func (o *Objects) read(text []byte, g *guards) error {
	documents := apiyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := o.add(document, g); err != nil {
			return err
		}
	}
}

// add adds an object, or those of a list.
func (o *Objects) add(document []byte, g *guards) error {
	var head struct {
		APIVersion string                 `json:"apiVersion"`
		Kind       string                 `json:"kind"`
		Metadata   struct{ Name string }  `json:"metadata"`
		Items      []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	group, _, _ := strings.Cut(head.APIVersion, "/")
	var err error
	switch head.Kind + "." + group {
	case "Role.rbac.authorization.k8s.io":
		err = read(document, &o.Roles)
	case "ClusterRole.rbac.authorization.k8s.io":
		err = read(document, &o.ClusterRoles)
	case "RoleBinding.rbac.authorization.k8s.io":
		err = read(document, &o.RoleBindings)
	case "ClusterRoleBinding.rbac.authorization.k8s.io":
		err = read(document, &o.ClusterRoleBindings)
	case "ValidatingAdmissionPolicy.admissionregistration.k8s.io":
		err = read(document, &g.policies)
	case "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io":
		err = read(document, &g.bindings)
	default:
		kind, isList := strings.CutSuffix(head.Kind, "List")
		for i := range head.Items {
			if !isList {
				break
			}
			item, err := typed(head.Items[i].Raw, head.APIVersion, kind)
			if err == nil {
				err = o.add(item, g)
			}
			if err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", head.Kind, head.Metadata.Name, err)
	}
	return nil
}

// typed gives the items of a typed list, such as a RoleList, the kind that the API
// server leaves out of them.
func typed(item []byte, apiVersion, kind string) ([]byte, error) {
	var fields map[string]any
	if err := yaml.Unmarshal(item, &fields); err != nil {
		return nil, err
	}
	if kind != "" && fields["kind"] == nil {
		fields["apiVersion"], fields["kind"] = apiVersion, kind
	}
	return yaml.Marshal(fields)
}

func read[T any](document []byte, list *[]T) error {
	var one T
	if err := yaml.UnmarshalStrict(document, &one); err != nil {
		return err
	}
	*list = append(*list, one)
	return nil
}

// guards are what there is of admission policies and their bindings.
type guards struct {
	policies []admission.ValidatingAdmissionPolicy
	bindings []admission.ValidatingAdmissionPolicyBinding
}

// judge tells whether a guard is on. What it checks is taken for what deploy/guards
// has.
func (g *guards) judge(name string) (is Guard) {
	for i := range g.policies {
		p := &g.policies[i]
		if p.Name != name {
			continue
		}
		if p.Spec.FailurePolicy != nil && *p.Spec.FailurePolicy == admission.Ignore {
			is.Doubt = "its failurePolicy is Ignore, so it does not fail closed"
			continue
		}
		is.Policy = true
	}
	for i := range g.bindings {
		b := &g.bindings[i]
		switch {
		case b.Spec.PolicyName != name:
		case !slices.Contains(b.Spec.ValidationActions, admission.Deny):
			is.Doubt = fmt.Sprintf("its binding %s has validationActions %v, without Deny", b.Name, b.Spec.ValidationActions)
		case b.Spec.MatchResources != nil && !everything(b.Spec.MatchResources):
			is.Doubt = fmt.Sprintf("its binding %s is limited by matchResources", b.Name)
		default:
			is.Bound = true
		}
	}
	if is.On() {
		is.Doubt = ""
	}
	return is
}

// everything tells whether a binding's matchResources leave nothing out.
func everything(m *admission.MatchResources) bool {
	return len(m.ResourceRules) == 0 && len(m.ExcludeResourceRules) == 0 &&
		(m.NamespaceSelector == nil || len(m.NamespaceSelector.MatchLabels)+len(m.NamespaceSelector.MatchExpressions) == 0) &&
		(m.ObjectSelector == nil || len(m.ObjectSelector.MatchLabels)+len(m.ObjectSelector.MatchExpressions) == 0)
}
