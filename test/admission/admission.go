// Package admission lists objects that admission must refuse, and objects that look
// like them and are valid. Converter and definitions of kinds are both held to it.
package admission

import (
	"fmt"
	"strings"
)

// Case is one object. Kind is KNP or CNP for the policies of Kubernetes itself, and
// empty if Spec is a whole manifest.
type Case struct{ Title, Kind, Spec string }

// Text is the manifest, in YAML.
func (c Case) Text() string {
	if c.Kind == "" {
		return c.Spec
	}
	return Manifest(c.Kind, c.Spec)
}

var apiVersions = map[string]string{
	"KNP": "networking.k8s.io/v1", "CNP": "policy.networking.k8s.io/v1alpha2", "EndpointSlice": "discovery.k8s.io/v1",
	"Pod": "v1", "Namespace": "v1", "ServiceAccount": "v1",
}

// Manifest puts a spec into an object named p, in the namespace shop if its kind has
// one.
func Manifest(kind, spec string) string {
	version, name := "projectcalico.org/v3", kind
	if v, ok := apiVersions[kind]; ok {
		version = v
	}
	switch kind {
	case "KNP":
		name = "NetworkPolicy"
	case "CNP":
		name = "ClusterNetworkPolicy"
	}
	return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: p, namespace: shop}, spec: %s}", version, name, spec)
}

// Repeat writes a YAML list of n elements; %d in element is its number.
func Repeat(n int, element string) string {
	var all []string
	for i := range n {
		if strings.Contains(element, "%d") {
			all = append(all, fmt.Sprintf(element, i))
		} else {
			all = append(all, element)
		}
	}
	return "[" + strings.Join(all, ", ") + "]"
}
