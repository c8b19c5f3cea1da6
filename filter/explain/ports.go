package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// service checks services: on the destination the address, protocol and port
// are an endpoint of the service; on the source the address alone.
func (w *walk) service(n entity, a netip.Addr, port uint16, m *misses) {
	if n.Service == nil {
		return
	}
	ref := *n.Service
	field := n.side + ".services"
	if n.side == "source" {
		if !w.e.serves(ref, a) {
			m.add(field, func() string {
				return fmt.Sprintf("source %s is no endpoint of service %s/%s", a, ref.Namespace, ref.Name)
			})
		}
		return
	}
	if !w.hasPorts || !w.e.servesPort(ref, a, w.Proto, port) {
		m.add(field, func() string {
			return fmt.Sprintf("destination %s %s is no endpoint of service %s/%s", a, w.portText(port), ref.Namespace, ref.Name)
		})
	}
}

// ports checks ports and notPorts.
func (w *walk) ports(n entity, at place, port uint16, m *misses) {
	if len(n.Ports) > 0 && !w.anyPort(n, n.Ports, at, port) {
		m.add(n.side+".ports", func() string {
			return fmt.Sprintf("%s %s is not in %s", n.side, w.portText(port), portsText(n.Ports))
		})
	}
	if len(n.NotPorts) > 0 && w.anyPort(n, n.NotPorts, at, port) {
		m.add(n.side+".notPorts", func() string {
			return fmt.Sprintf("%s %s is in the excluded %s", n.side, w.portText(port), portsText(n.NotPorts))
		})
	}
}

// anyPort tells whether the packet's port is one of the list: by number, or by
// a name that an object at the address declares with this protocol and number
// and which the same side's identity criteria admit.
func (w *walk) anyPort(n entity, list []policy.Port, at place, port uint16) bool {
	if !w.hasPorts {
		return false
	}
	return slices.ContainsFunc(list, func(p policy.Port) bool {
		if p.Name == "" {
			return p.Contains(port)
		}
		want := policy.NamedPort{Name: p.Name, Proto: w.Proto, Port: port}
		return slices.ContainsFunc(at.objects, func(o *object) bool {
			return slices.Contains(o.ports, want) && w.e.admits(n, o)
		})
	})
}

func (w *walk) portText(port uint16) string {
	if !w.hasPorts {
		return fmt.Sprintf("port (%s, none in this packet)", w.Proto)
	}
	return fmt.Sprintf("port %s/%d", w.Proto, port)
}

func portsText(ports []policy.Port) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.Name
		if p.Name == "" {
			texts[i] = p.String()
		}
	}
	return listText(texts)
}

// listText prints at most eight elements: "[a b c and 17 more]".
func listText[T any](list []T) string {
	const most = 8
	var b strings.Builder
	b.WriteByte('[')
	for i, v := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, v)
	}
	b.WriteByte(']')
	return b.String()
}
