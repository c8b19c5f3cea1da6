package kube

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
)

// compactor lets objects share what is equal in them. Of 100,000 pods most were
// made from few templates, by few owners, on few nodes: their labels are worth
// some 400 bytes a pod, or nothing.
type compactor struct {
	mu      sync.Mutex // a feed's old watch may still run while the new one starts
	strings generations[string]
	labels  generations[map[string]string]
	ports   generations[[]policy.NamedPort]
	keys    []string
}

// generations is a cache of bounded size: what was not asked for while one
// generation filled is forgotten with the next.
type generations[T any] struct{ young, old map[string]T }

// maxGeneration bounds a generation. Two of the largest cost some 10 MB.
const maxGeneration = 1 << 15

func (g *generations[T]) get(key string) (v T, ok bool) {
	if v, ok = g.young[key]; ok {
		return v, true
	}
	if v, ok = g.old[key]; ok {
		g.put(key, v)
	}
	return v, ok
}

func (g *generations[T]) put(key string, v T) {
	if g.young == nil || len(g.young) >= maxGeneration {
		g.young, g.old = make(map[string]T), g.young
	}
	g.young[key] = v
}

// compact makes an object that nobody else has seen yet share memory.
func (c *compactor) compact(o *k8ssync.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.Key.Namespace = c.shared(o.Key.Namespace)
	switch v := o.Value.(type) {
	case *policy.Endpoint:
		v.Namespace, v.Name = o.Key.Namespace, o.Key.Name
		v.ServiceAccount, v.Node = c.shared(v.ServiceAccount), c.shared(v.Node)
		v.Labels = c.sharedLabels(v.Labels)
		v.Ports = c.sharedPorts(v.Ports)
		v.Addrs = slices.Clip(v.Addrs)
	case *policy.ServiceAccount:
		v.Namespace, v.Name, v.Labels = o.Key.Namespace, o.Key.Name, c.sharedLabels(v.Labels)
	case *policy.EndpointSlice:
		v.Namespace, v.Name = o.Key.Namespace, o.Key.Name
		v.Addrs, v.Ports = slices.Clip(v.Addrs), slices.Clip(v.Ports)
	}
}

func (c *compactor) shared(s string) string {
	if s == "" {
		return ""
	}
	if v, ok := c.strings.get(s); ok {
		return v
	}
	s = strings.Clone(s)
	c.strings.put(s, s)
	return s
}

func (c *compactor) sharedLabels(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	c.keys = slices.AppendSeq(c.keys[:0], maps.Keys(labels))
	slices.Sort(c.keys)
	var b strings.Builder
	for _, k := range c.keys {
		b.WriteString(k)
		b.WriteByte(0)
		b.WriteString(labels[k])
		b.WriteByte(0)
	}
	key := b.String()
	if v, ok := c.labels.get(key); ok {
		return v
	}
	own := make(map[string]string, len(labels))
	for k, v := range labels {
		own[c.shared(k)] = c.shared(v)
	}
	c.labels.put(key, own)
	return own
}

func (c *compactor) sharedPorts(ports []policy.NamedPort) []policy.NamedPort {
	if len(ports) == 0 {
		return nil
	}
	var b strings.Builder
	for _, p := range ports {
		b.WriteString(p.Name)
		b.Write([]byte{0, byte(p.Proto), byte(p.Port >> 8), byte(p.Port)})
	}
	key := b.String()
	if v, ok := c.ports.get(key); ok {
		return v
	}
	own := slices.Clone(ports)
	for i := range own {
		own[i].Name = c.shared(own[i].Name)
	}
	c.ports.put(key, own)
	return own
}
