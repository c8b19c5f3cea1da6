package main

import (
	"reflect"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

const group = "projectcalico.org"

// kind is one kind of object.
type kind struct {
	plural     string
	namespaced bool
	object     any // a value of the Go type
	columns    []column
}

// column is one more column of `kubectl get`.
type column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	JSONPath string `json:"jsonPath"`
}

var (
	tierColumn  = column{"Tier", "string", ".spec.tier"}
	orderColumn = column{"Order", "number", ".spec.order"}
	ageColumn   = column{"Age", "date", ".metadata.creationTimestamp"}
	ofPolicy    = []column{tierColumn, orderColumn, ageColumn}
	ofStaged    = []column{tierColumn, orderColumn, {"Action", "string", ".spec.stagedAction"}, ageColumn}
)

var kinds = []kind{
	{"tiers", false, calico.Tier{}, []column{orderColumn, {"DefaultAction", "string", ".spec.defaultAction"}, ageColumn}},
	{"networkpolicies", true, calico.NetworkPolicy{}, ofPolicy},
	{"globalnetworkpolicies", false, calico.GlobalNetworkPolicy{}, ofPolicy},
	{"stagednetworkpolicies", true, calico.StagedNetworkPolicy{}, ofStaged},
	{"stagedglobalnetworkpolicies", false, calico.StagedGlobalNetworkPolicy{}, ofStaged},
	{"stagedkubernetesnetworkpolicies", true, calico.StagedKubernetesNetworkPolicy{}, []column{{"Action", "string", ".spec.stagedAction"}, ageColumn}},
	{"networksets", true, calico.NetworkSet{}, nil},
	{"globalnetworksets", false, calico.GlobalNetworkSet{}, nil},
	{"hostendpoints", false, calico.HostEndpoint{}, []column{{"Node", "string", ".spec.node"}, {"Interface", "string", ".spec.interfaceName"}, ageColumn}},
	{"profiles", false, calico.Profile{}, nil},
}

func (k kind) kind() string { return reflect.TypeOf(k.object).Name() }

// definition is the CustomResourceDefinition.
func (k kind) definition() (any, error) {
	r := reader{namespaced: k.namespaced}
	schema, err := r.read(reflect.TypeOf(k.object))
	if err != nil {
		return nil, err
	}
	constrainRoot(k, schema)
	type object = map[string]any
	version := object{
		"name": "v3", "served": true, "storage": true,
		"schema": object{"openAPIV3Schema": schema},
	}
	if k.columns != nil {
		version["additionalPrinterColumns"] = k.columns
	}
	scope := "Cluster"
	if k.namespaced {
		scope = "Namespaced"
	}
	return object{
		"apiVersion": "apiextensions.k8s.io/v1",
		"kind":       "CustomResourceDefinition",
		"metadata":   object{"name": k.plural + "." + group},
		"spec": object{
			"group": group,
			"names": object{"kind": k.kind(), "listKind": k.kind() + "List", "plural": k.plural, "singular": strings.ToLower(k.kind())},
			"scope": scope, "versions": []any{version},
		},
	}, nil
}
