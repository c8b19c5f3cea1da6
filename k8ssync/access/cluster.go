package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/convert"
)

// ReadCluster reads from the API server of a kubeconfig file. The second result tells
// of objects that cannot be used as they are.
func ReadCluster(ctx context.Context, kubeconfig string) (Objects, []string, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return Objects{}, nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return readCluster(ctx, config)
}

// kinds are the resources of one API version, with the kinds of their objects.
type kinds struct {
	version string
	of      [][2]string // resource, kind
}

var calicoKinds = [][2]string{
	{"tiers", "Tier"}, {"networkpolicies", "NetworkPolicy"}, {"globalnetworkpolicies", "GlobalNetworkPolicy"},
	{"stagednetworkpolicies", "StagedNetworkPolicy"}, {"stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy"},
	{"stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy"},
}

func readCluster(ctx context.Context, config *rest.Config) (o Objects, warnings []string, err error) {
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		return o, nil, err
	}
	all := metav1.ListOptions{}
	r, err1 := set.RbacV1().Roles("").List(ctx, all)
	cr, err2 := set.RbacV1().ClusterRoles().List(ctx, all)
	rb, err3 := set.RbacV1().RoleBindings("").List(ctx, all)
	crb, err4 := set.RbacV1().ClusterRoleBindings().List(ctx, all)
	p, err5 := set.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, all)
	b, err6 := set.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, all)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return o, nil, err
	}
	o.Roles, o.ClusterRoles, o.RoleBindings, o.ClusterRoleBindings = r.Items, cr.Items, rb.Items, crb.Items
	g := guards{p.Items, b.Items}
	o.UseGuard, o.TierGuard = g.judge(useGuard), g.judge(tierGuard)

	var objects []k8ssync.Object
	served := map[string]bool{}
	for _, k := range []kinds{
		{"v1", [][2]string{{"namespaces", "Namespace"}, {"serviceaccounts", "ServiceAccount"}}},
		{"networking.k8s.io/v1", [][2]string{{"networkpolicies", "NetworkPolicy"}}},
		{"policy.networking.k8s.io/v1alpha2", [][2]string{{"clusternetworkpolicies", "ClusterNetworkPolicy"}}},
		{"projectcalico.org/v3", calicoKinds},
		{"crd.projectcalico.org/v1", calicoKinds},
	} {
		// What Calico's API server shows as the one it stores as the other.
		if k.version == "crd.projectcalico.org/v1" && served["projectcalico.org/v3"] {
			continue
		}
		for _, of := range k.of {
			found, err := listObjects(ctx, set, k.version, of[0], of[1])
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return o, nil, fmt.Errorf("list %s of %s: %w", of[0], k.version, err)
			}
			served[k.version] = true
			objects = append(objects, found...)
		}
	}
	o.Stored = served["crd.projectcalico.org/v1"]
	return o, o.hold(objects), nil
}

// listObjects reads the objects of a resource, page by page.
func listObjects(ctx context.Context, set *kubernetes.Clientset, version, resource, kind string) (objects []k8ssync.Object, err error) {
	path := "/apis/" + version + "/" + resource
	if version == "v1" {
		path = "/api/v1/" + resource
	}
	for next := ""; ; {
		request := set.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json").Param("limit", "500")
		if next != "" {
			request = request.Param("continue", next)
		}
		text, err := request.DoRaw(ctx)
		if err != nil {
			return nil, err
		}
		var page struct {
			Metadata struct{ Continue string }
			Items    []map[string]json.RawMessage
		}
		if err := json.Unmarshal(text, &page); err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			item["apiVersion"], item["kind"] = json.RawMessage(`"`+version+`"`), json.RawMessage(`"`+kind+`"`)
			text, err := json.Marshal(item)
			if err != nil {
				return nil, err
			}
			result, err := convert.Decode(text)
			if err != nil {
				return nil, err
			}
			objects = append(objects, k8ssync.Object(result))
		}
		if next = page.Metadata.Continue; next == "" {
			return objects, nil
		}
	}
}
