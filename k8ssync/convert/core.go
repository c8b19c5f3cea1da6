package convert

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// Annotations that CNI plugins empty when they take a pod's addresses away.
const (
	annotationPodIP  = "cni.projectcalico.org/podIP"
	annotationAWSIPs = "vpc.amazonaws.com/pod-ips"
)

func (r *report) namespace(o *core.Namespace) *policy.Namespace {
	return &policy.Namespace{Name: o.Name, Labels: cloneLabels(o.Labels)}
}

func (r *report) serviceAccount(o *core.ServiceAccount) *policy.ServiceAccount {
	return &policy.ServiceAccount{Namespace: r.key.Namespace, Name: o.Name, Labels: cloneLabels(o.Labels)}
}

// pod gives nil for a pod that is no endpoint (spec 3.1). An address that cannot
// be read is left out, and the pod is one with the addresses that remain.
func (r *report) pod(o *core.Pod) *policy.Endpoint {
	if !scheduled(o) || o.Spec.HostNetwork || finished(o) {
		return nil
	}
	addrs := r.podAddrs(o)
	if len(addrs) == 0 {
		return nil
	}
	e := r.identity(o)
	e.Addrs = addrs
	return e
}

// identity is a pod as an endpoint without addresses.
func (r *report) identity(o *core.Pod) *policy.Endpoint {
	e := &policy.Endpoint{
		Namespace: r.key.Namespace, Name: o.Name, UID: string(o.UID),
		ServiceAccount: o.Spec.ServiceAccountName, Node: o.Spec.NodeName, Labels: cloneLabels(o.Labels),
	}
	// Not ephemeral containers, which cannot declare ports to the outside.
	e.Ports = r.namedPorts(e.Ports, "spec.containers", o.Spec.Containers)
	e.Ports = r.namedPorts(e.Ports, "spec.initContainers", o.Spec.InitContainers)
	return e
}

// PodIdentity gives what a pod would be at an address that its object does not tell:
// an endpoint without addresses. It is nil if the text is not a pod's, or of a pod on
// the host's network, which is no endpoint anywhere.
func PodIdentity(text []byte) *policy.Endpoint {
	var o core.Pod
	if _, err := decodeInto(&o, text, false); err != nil || o.Kind != string(policy.PodKind) || o.Name == "" || o.Spec.HostNetwork {
		return nil
	}
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	return newReport(policy.PodKind, &o).identity(&o)
}

// scheduled tells whether a pod has been given to a node. An address in its status
// proves it as well, so a manifest for a stand-alone host need not name a node.
func scheduled(o *core.Pod) bool {
	return o.Spec.NodeName != "" || o.Status.PodIP != "" || len(o.Status.PodIPs) > 0
}

// finished tells whether a pod has given its addresses back.
func finished(o *core.Pod) bool {
	switch o.Status.Phase {
	case core.PodSucceeded, core.PodFailed, "Completed":
		return true
	}
	// A terminating pod may serve on for its grace period; the CNI plugin empties
	// its annotation when it takes the address away, which is after the containers
	// have ended. Whoever may write the pod could empty it as well, and send on without
	// policy, so the kubelet must not say that one runs.
	if o.DeletionTimestamp == nil || running(&o.Status) {
		return false
	}
	for _, a := range []string{annotationPodIP, annotationAWSIPs} {
		if ips, ok := o.Annotations[a]; ok && ips == "" {
			return true
		}
	}
	return false
}

// running tells whether the kubelet has seen a container that runs.
func running(s *core.PodStatus) bool {
	for _, list := range [][]core.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].State.Running != nil {
				return true
			}
		}
	}
	return false
}

// podAddrs reads the first source of addresses that is not empty, of those that the
// kubelet writes. Not the annotations in which some CNI plugins note addresses earlier:
// whoever may make a pod could claim there the address of any other pod, or of a node.
func (r *report) podAddrs(o *core.Pod) []netip.Addr {
	var texts []string
	field := "status.podIPs"
	for _, ip := range o.Status.PodIPs {
		if ip.IP != "" {
			texts = append(texts, ip.IP)
		}
	}
	if len(texts) == 0 && o.Status.PodIP != "" {
		field, texts = "status.podIP", []string{o.Status.PodIP}
	}
	var addrs []netip.Addr
	for _, text := range texts {
		a, why := plainAddr(text)
		if why != "" {
			r.add(field, "%s; the pod goes without this address", why)
		} else if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

func (r *report) namedPorts(out []policy.NamedPort, field string, containers []core.Container) []policy.NamedPort {
	for i, c := range containers {
		for j, p := range c.Ports {
			proto, known := transport(p.Protocol)
			if p.Name == "" || !known {
				continue
			}
			if p.ContainerPort < 1 || p.ContainerPort > 65535 {
				r.add(field+"["+strconv.Itoa(i)+"].ports["+strconv.Itoa(j)+"].containerPort",
					"%d is no port; write a number from 1 to 65535", p.ContainerPort)
				continue
			}
			out = append(out, policy.NamedPort{Name: p.Name, Proto: proto, Port: uint16(p.ContainerPort)})
		}
	}
	return out
}

// transport reads a Kubernetes protocol; empty is TCP.
func transport(p core.Protocol) (proto flow.Proto, known bool) {
	switch p {
	case core.ProtocolTCP, "":
		return flow.TCP, true
	case core.ProtocolUDP:
		return flow.UDP, true
	case core.ProtocolSCTP:
		return flow.SCTP, true
	}
	return 0, false
}

// endpointSlice gives nil for a slice that belongs to no service. Host names
// are skipped, readiness is ignored (spec 6, services).
func (r *report) endpointSlice(o *discovery.EndpointSlice) *policy.EndpointSlice {
	s := &policy.EndpointSlice{Namespace: r.key.Namespace, Name: o.Name, Service: o.Labels[discovery.LabelServiceName]}
	if s.Service == "" || o.AddressType == discovery.AddressTypeFQDN {
		return nil
	}
	for i, e := range o.Endpoints {
		for j, text := range e.Addresses {
			if a, why := plainAddr(text); why != "" {
				r.add("endpoints["+strconv.Itoa(i)+"].addresses["+strconv.Itoa(j)+"]", "%s", why)
			} else {
				s.Addrs = append(s.Addrs, a)
			}
		}
	}
	for i, p := range o.Ports {
		at := "ports[" + strconv.Itoa(i) + "]"
		var name core.Protocol
		if p.Protocol != nil {
			name = *p.Protocol
		}
		proto, known := transport(name)
		switch {
		case p.Port == nil: // every port, which no rule can mean
		case !known:
			r.add(at+".protocol", "%q is no protocol of a service; write TCP, UDP or SCTP", shorten(string(name)))
		case *p.Port < 1 || *p.Port > 65535:
			r.add(at+".port", "%d is no port; write a number from 1 to 65535", *p.Port)
		default:
			s.Ports = append(s.Ports, policy.ServicePort{Proto: proto, Port: uint16(*p.Port)})
		}
	}
	return s
}

// cloneLabels copies labels, since informers share their objects.
func cloneLabels(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}
