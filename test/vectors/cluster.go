package vectors

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// cluster is the state of one vector: what the store holds, and the pods by
// "namespace/name" so that flows can name them.
type cluster struct {
	store *k8ssync.Store
	pods  map[string]Pod
}

func newCluster() *cluster {
	return &cluster{store: k8ssync.NewStore(), pods: map[string]Pod{}}
}

// apply brings in what a step changes, and tells what admission did wrong.
func (c *cluster) apply(s *Step) []error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Namespaces)) {
		errs = append(errs, c.put(plain("Namespace", "", name, s.Namespaces[name], nil)))
	}
	for _, key := range slices.Sorted(maps.Keys(s.ServiceAccounts)) {
		namespace, name, _ := strings.Cut(key, "/")
		errs = append(errs, c.put(plain("ServiceAccount", namespace, name, s.ServiceAccounts[key], nil)))
	}
	for _, p := range s.Pods {
		errs = append(errs, c.put(p.text()))
		c.pods[p.Namespace+"/"+p.Name] = p
	}
	for _, name := range s.DeleteNamespaces {
		c.store.Delete(policy.Key{Kind: policy.NamespaceKind, Name: name})
	}
	for _, key := range s.DeleteServiceAccounts {
		namespace, name, _ := strings.Cut(key, "/")
		c.store.Delete(policy.Key{Kind: policy.ServiceAccountKind, Namespace: namespace, Name: name})
	}
	return append(errs, c.admit(s)...)
}

// put brings in one object of the world, which must be valid.
func (c *cluster) put(text string) error {
	objs, err := parseObject(text)
	if err == nil {
		err = problems(objs)
	}
	if err != nil {
		return fmt.Errorf("convert: %s: %w", text, err)
	}
	c.upsert(objs)
	return nil
}

func (c *cluster) upsert(objs []k8ssync.Object) {
	for _, o := range objs {
		c.store.Upsert(o)
	}
}

// admit brings in the policy objects of a step. Those with problems are refused,
// as the API server would, unless the step does not validate.
func (c *cluster) admit(s *Step) []error {
	var errs []error
	refused := 0
	for _, o := range s.Objects {
		objs, err := parsePolicy(o)
		if err == nil && !s.NoValidate {
			err = problems(objs)
		}
		switch {
		case err == nil:
			c.upsert(objs)
		case s.Reject && !s.NoValidate:
			refused++
		default:
			errs = append(errs, fmt.Errorf("convert: %s: must be accepted: %w", o, err))
		}
	}
	if s.Reject && refused == 0 {
		errs = append(errs, errors.New("convert: one of objs must be refused and all are accepted"))
	}
	for _, o := range s.Rejects {
		objs, err := parsePolicy(o)
		if err == nil && problems(objs) == nil {
			errs = append(errs, fmt.Errorf("convert: %s: must be refused: %s", o, text(o.Spec)))
		}
	}
	return errs
}

func parsePolicy(o Object) ([]k8ssync.Object, error) {
	text, err := o.Text()
	if err != nil {
		return nil, err
	}
	return parseObject(text)
}

// parseObject reads one API object as the file source does.
func parseObject(text string) ([]k8ssync.Object, error) {
	objs, err := file.Parse("vector.yaml", []byte(text))
	if err == nil && len(objs) != 1 {
		err = fmt.Errorf("%d objects instead of one", len(objs))
	}
	return objs, err
}

// problems joins what is wrong with the objects; nil if nothing is.
func problems(objs []k8ssync.Object) error {
	var errs []error
	for _, o := range objs {
		for _, p := range o.Problems {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// addrs finds a pod by "name" or "namespace/name".
func (c *cluster) addrs(name string) ([]netip.Addr, error) {
	var found []string
	for key, p := range c.pods {
		if key == name || p.Name == name {
			found = append(found, key)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no pod is named %q", name)
	case 1:
	default:
		return nil, fmt.Errorf("pods %s are all named %q; write namespace/name", strings.Join(found, ", "), name)
	}
	var addrs []netip.Addr
	for _, ip := range c.pods[found[0]].IPs {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", found[0], err)
		}
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}
