package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
)

// nodePatience bounds the request for the node's object: a start waits for it.
const nodePatience = 2 * time.Second

// PodCIDRs asks the API server of config for the prefixes from which the pods of
// config.Node have their addresses: spec.podCIDRs of the node's object. There may be
// none: not yet, or because the network plugin gives addresses in its own way.
func PodCIDRs(ctx context.Context, config Config) ([]netip.Prefix, error) {
	rc, err := loadConfig(config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	c, err := newClients(rc)
	if err != nil {
		return nil, err
	}
	return c.podCIDRs(ctx, config.Node)
}

func (c *clients) podCIDRs(ctx context.Context, node string) ([]netip.Prefix, error) {
	client, err := c.of(coreV1, false)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, nodePatience)
	defer cancel()
	var n core.Node
	if err := client.Get().Resource("nodes").Name(node).Do(ctx).Into(&n); err != nil {
		return nil, fmt.Errorf("read node %s: %w", node, err)
	}
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 && n.Spec.PodCIDR != "" {
		texts = []string{n.Spec.PodCIDR}
	}
	var prefixes []netip.Prefix
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("node %s: spec.podCIDRs[%d]: %q is no prefix", node, i, text)
		}
		prefixes = append(prefixes, p.Masked())
	}
	return prefixes, nil
}

// watchNode compares the node's prefixes with those that the source was made with,
// once for each discovery, and keeps what is wrong for Status. The API server lets
// them change only from none to some, unless the node is made anew.
func (s *Source) watchNode(ctx context.Context) {
	if !s.config.WatchNode {
		return
	}
	now, err := s.clients.podCIDRs(ctx, s.config.Node)
	said := ""
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		said = "the prefixes of this node's pods are not known, packets of pods that are not known yet are not held: " + err.Error() + "; give --pod-cidr, or none for it"
	case len(now) == 0:
		said = fmt.Sprintf("node %s has no spec.podCIDRs, packets of pods that are not known yet are not held; give --pod-cidr, or none for it", s.config.Node)
	}
	switch {
	case len(s.config.PodCIDRs) > 0 && (err != nil || slices.Equal(now, s.config.PodCIDRs)):
		said = ""
	case err == nil && len(now) > 0 && !slices.Equal(now, s.config.PodCIDRs):
		said = fmt.Sprintf("node %s has spec.podCIDRs %s, and postern started with %s: restart it", s.config.Node, join(now), join(s.config.PodCIDRs))
	}
	s.mu.Lock()
	s.nodeSaid = said
	s.mu.Unlock()
}

func join(prefixes []netip.Prefix) string {
	if len(prefixes) == 0 {
		return "none"
	}
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}
