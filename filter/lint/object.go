package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// checkObjects looks at what is no policy.
func (c *checker) checkObjects() {
	for _, ep := range c.Endpoints {
		c.reservedLabels(ep.Key(), ep.Labels, map[string]string{
			namespaceLabel: ep.Namespace, serviceAccountLabel: ep.ServiceAccount, orchestratorLabel: "k8s",
		})
	}
	for _, h := range c.HostEndpoints {
		key := policy.Key{Kind: policy.HostEndpointKind, Name: h.Name}
		c.reservedLabels(key, h.Labels, nil)
		c.add(HostEndpointNotEnforced, key, "", "no policy protects a host endpoint yet; it counts as a peer in rules only",
			"keep the firewall that protects the host itself")
	}
	for _, s := range c.NetworkSets {
		c.reservedLabels(policy.Key{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}, s.Labels, nil)
	}
}

// reservedLabels finds labels that only derivation may set, unless they say what
// is derived anyway.
func (c *checker) reservedLabels(key policy.Key, labels, derived map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if v, ok := derived[k]; !reserved(k) || ok && v == labels[k] && v != "" {
			continue
		}
		advice := "remove it"
		switch {
		case strings.HasPrefix(k, namespacePrefix):
			advice = "label the namespace with " + strings.TrimPrefix(k, namespacePrefix)
		case strings.HasPrefix(k, accountPrefix):
			advice = "label the service account with " + strings.TrimPrefix(k, accountPrefix)
		case k == serviceAccountLabel && key.Kind == policy.PodKind:
			advice = "set spec.serviceAccountName"
		}
		c.add(ReservedLabel, key, fmt.Sprintf("metadata.labels[%s]", k), "is derived from the namespace and the service account; what is written here is ignored", advice)
	}
}
