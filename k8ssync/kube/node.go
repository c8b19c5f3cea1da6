package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/postern-project/postern/filter/policy"
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

// nodeEvery is how often a node that is not known is looked for: a first pod, or the
// kubelet's first start, ends it.
const nodeEvery = 5 * time.Second

// watchNode looks at the node's object, once for each discovery, and keeps what is
// wrong for Status: that nobody knows of such a node, whose daemon protects nothing;
// or prefixes other than those that the source was made with. The API server lets
// them change only from none to some, unless the node is made anew.
func (s *Source) watchNode(ctx context.Context) {
	now, err := s.clients.podCIDRs(ctx, s.config.Node)
	if ctx.Err() != nil {
		return
	}
	missing := (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)) && s.isSynced() && !s.hosts()
	said := ""
	switch {
	case missing && apierrors.IsNotFound(err):
		said = fmt.Sprintf("no pod names node %s, and the cluster has no Node of this name: nothing is protected here; see kubectl get nodes, and give --node", s.config.Node)
	case missing:
		said = fmt.Sprintf("no pod names node %s: nothing is protected here; is this its name? %v", s.config.Node, err)
	case s.config.WatchNode:
		said = s.otherPrefixes(now, err)
	}
	s.sayNode(missing, said)
}

// hosts tells whether a pod names this node.
func (s *Source) hosts() bool {
	return slices.ContainsFunc(s.store.Snapshot().Pods(), func(e *policy.Endpoint) bool { return e.Node == s.config.Node })
}

// otherPrefixes says what is wrong with the prefixes that podCIDRs gave now.
func (s *Source) otherPrefixes(now []netip.Prefix, err error) string {
	switch had := s.config.PodCIDRs; {
	case err == nil && len(now) > 0 && !slices.Equal(now, had):
		return fmt.Sprintf("node %s has spec.podCIDRs %s, and postern started with %s: restart it", s.config.Node, join(now), join(had))
	case len(had) > 0 && (err != nil || len(now) > 0):
		return ""
	case err != nil:
		return "the prefixes of this node's pods are not known, packets of pods that are not known yet are not held: " + err.Error() + "; give --pod-cidr, or none for it"
	case len(now) == 0:
		return fmt.Sprintf("node %s has no spec.podCIDRs, packets of pods that are not known yet are not held; give --pod-cidr, or none for it", s.config.Node)
	}
	return ""
}

// sayNode keeps what is wrong with the node, and logs it at its beginning, once a
// minute, and at its end.
func (s *Source) sayNode(missing bool, said string) {
	s.mu.Lock()
	before := s.nodeSaid
	s.nodeSaid, s.nodeMissing = said, missing
	s.mu.Unlock()
	switch {
	case said != "" && (said != before || time.Since(s.nodeLogged) >= remindEvery):
		s.log.Error().Str("node", s.config.Node).Msg("degraded: " + said)
		s.nodeLogged = time.Now()
	case said == "" && before != "":
		s.log.Info().Str("node", s.config.Node).Msg("the node is as it should be again")
	}
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
