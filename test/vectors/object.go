package vectors

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Object is one policy object of a vector.
type Object struct {
	Kind            string // as the vector writes it, such as NP
	Namespace, Name string
	// Labels and Annotations belong to the metadata, the rest is the spec.
	Labels, Annotations any
	Spec                map[string]any
}

// String prints it as the vector writes it: "NP namespace/name".
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Node hosts every pod of a vector, and is the node under test.
const Node = "node1"

const calico = "projectcalico.org/v3"

var kinds = map[string]struct {
	apiVersion, kind string
	namespaced       bool
}{
	"NP":    {calico, "NetworkPolicy", true},
	"GNP":   {calico, "GlobalNetworkPolicy", false},
	"SNP":   {calico, "StagedNetworkPolicy", true},
	"SGNP":  {calico, "StagedGlobalNetworkPolicy", false},
	"SKNP":  {calico, "StagedKubernetesNetworkPolicy", true},
	"TIER":  {calico, "Tier", false},
	"NSET":  {calico, "NetworkSet", true},
	"GNSET": {calico, "GlobalNetworkSet", false},
	"HEP":   {calico, "HostEndpoint", false},
	"PROF":  {calico, "Profile", false},
	"KNP":   {"networking.k8s.io/v1", "NetworkPolicy", true},
	"CNP":   {"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false},
	"EPS":   {"discovery.k8s.io/v1", "EndpointSlice", true},
}

// ParseObject reads {KIND: [namespace/]name, …}.
func ParseObject(fields map[string]any) (Object, error) {
	var o Object
	o.Spec = maps.Clone(fields)
	for key := range fields {
		if _, known := kinds[key]; !known {
			continue
		}
		if o.Kind != "" {
			return o, fmt.Errorf("object of two kinds, %s and %s: %.200s", o.Kind, key, text(fields))
		}
		o.Kind = key
	}
	if o.Kind == "" {
		return o, fmt.Errorf("object without one of the kinds %s: %.200s", strings.Join(slices.Sorted(maps.Keys(kinds)), " "), text(fields))
	}
	name, _ := fields[o.Kind].(string)
	namespace, rest, found := strings.Cut(name, "/")
	if found {
		o.Namespace, o.Name = namespace, rest
	} else {
		o.Name = name
	}
	if o.Name == "" || found != kinds[o.Kind].namespaced {
		return o, fmt.Errorf("object %s %q: want namespace/name for namespaced kinds and a name for others: %.200s", o.Kind, name, text(fields))
	}
	o.Labels, o.Annotations = fields["labels"], fields["annotations"]
	for _, key := range []string{o.Kind, "labels", "annotations"} {
		delete(o.Spec, key)
	}
	return o, nil
}

// Text gives the API object as JSON, as a user writes it: what the API server
// fills in is left to the production path, which reads such manifests too.
func (o Object) Text() (string, error) {
	k := kinds[o.Kind]
	obj := map[string]any{"apiVersion": k.apiVersion, "kind": k.kind}
	meta := map[string]any{"name": o.Name}
	if o.Namespace != "" {
		meta["namespace"] = o.Namespace
	}
	if o.Labels != nil {
		meta["labels"] = o.Labels
	}
	if o.Annotations != nil {
		meta["annotations"] = o.Annotations
	}
	obj["metadata"] = meta
	if o.Kind == "EPS" {
		if err := o.endpointSlice(obj, meta); err != nil {
			return "", fmt.Errorf("%s: %w", o, err)
		}
		return text(obj), nil
	}
	obj["spec"] = o.Spec
	return text(obj), nil
}

// endpointSlice turns svc, addrs and ports into an EndpointSlice's fields.
func (o Object) endpointSlice(obj, meta map[string]any) error {
	for key := range o.Spec {
		if key != "svc" && key != "addrs" && key != "ports" {
			return fmt.Errorf("field %q: want svc, addrs and ports", key)
		}
	}
	service, _ := o.Spec["svc"].(string)
	if service == "" {
		return errors.New("no svc")
	}
	labels, _ := o.Labels.(map[string]any)
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]any{}
	}
	labels["kubernetes.io/service-name"] = service
	meta["labels"] = labels
	addrs, _ := o.Spec["addrs"].([]any)
	family := "IPv4"
	endpoints := []any{}
	for _, v := range addrs {
		addr, _ := v.(string)
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return fmt.Errorf("addrs: %w", err)
		}
		f := "IPv4"
		if a.Is6() {
			f = "IPv6"
		}
		if len(endpoints) > 0 && f != family {
			return errors.New("addrs of two families; an EndpointSlice has one")
		}
		family = f
		endpoints = append(endpoints, map[string]any{"addresses": []string{addr}})
	}
	obj["addressType"], obj["endpoints"] = family, endpoints
	if ports, ok := o.Spec["ports"]; ok {
		obj["ports"] = ports
	}
	return nil
}

// text gives the pod as a Kubernetes object in JSON.
func (p Pod) text() string {
	var ports []any
	for _, port := range p.Ports {
		proto := strings.ToUpper(port.Protocol)
		if proto == "" {
			proto = "TCP"
		}
		ports = append(ports, map[string]any{"name": port.Name, "containerPort": port.Port, "protocol": proto})
	}
	container := map[string]any{"name": "main", "image": "none"}
	if ports != nil {
		container["ports"] = ports
	}
	spec := map[string]any{"nodeName": Node, "containers": []any{container}}
	if p.Account == nil {
		spec["serviceAccountName"] = "default" // as the API server's admission does
	} else if *p.Account != "" {
		spec["serviceAccountName"] = *p.Account
	}
	if p.HostNetwork {
		spec["hostNetwork"] = true
	}
	status := map[string]any{"phase": "Running"}
	if p.Phase != "" {
		status["phase"] = p.Phase
	}
	var ips []any
	for _, ip := range p.IPs {
		ips = append(ips, map[string]any{"ip": ip})
	}
	if ips != nil {
		status["podIP"], status["podIPs"] = p.IPs[0], ips
	}
	return plain("Pod", p.Namespace, p.Name, p.Labels, map[string]any{"spec": spec, "status": status})
}

// plain gives an object of the core group as JSON.
func plain(kind, namespace, name string, labels map[string]string, rest map[string]any) string {
	meta := map[string]any{"name": name}
	if namespace != "" {
		meta["namespace"] = namespace
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	obj := map[string]any{"apiVersion": "v1", "kind": kind, "metadata": meta}
	maps.Copy(obj, rest)
	return text(obj)
}

// text prints JSON. What it is given came from JSON or has string keys and
// plain values.
func text(v any) string {
	t, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(t)
}
