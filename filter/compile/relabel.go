package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/postern-project/postern/filter/policy"
)

// Most changes of a large cluster are pods of other nodes that get other labels: a
// rollout, a controller that marks one. Nothing changes then but the class of their
// addresses, from one that has the identity they had to one that has the new identity
// and is alike in all else. relabel makes that change alone, in a fraction of the time
// that taking the pod out and putting it back takes.

// relabelled is a pod's object before and after a change.
type relabelled struct{ old, now *policy.Endpoint }

// relabel follows a change of a pod, if it is of that kind. It is called before anything
// else of an update is done, when every class is as it was committed.
func (c *Compiler) relabel(r relabelled) bool {
	old, now := r.old, r.now
	if len(now.Addrs) == 0 || old.Name != now.Name || old.Namespace != now.Namespace || old.ServiceAccount != now.ServiceAccount ||
		old.Node != now.Node || !slices.Equal(old.Addrs, now.Addrs) {
		return false
	}
	var p *pod
	all := c.touched[:0]
	for _, addr := range now.Addrs {
		a := c.at(addr)
		if a == nil || a.pod == nil || a.pod.endpoint != old || a.pod.hosted || len(a.others) > 0 || a.dirty || len(a.class.identities) != 1 {
			return false
		}
		p, all = a.pod, append(all, a)
	}
	c.touched = all
	was, id := p.identity, c.identityOfPod(now)
	p.endpoint, p.identity = now, id
	if id == was {
		return true
	}
	id.objects++
	for _, a := range all {
		from := a.class
		to := id.classLike(from)
		if to == nil {
			to = c.newClassLike(from, id)
		}
		a.class = to
		to.prefixes++
		c.leave(from)
		if err := c.out.SetAddresses(a.prefix, to.id); err != nil {
			c.failed = fmt.Errorf("address %s: %w", a.prefix, err)
		}
		if !c.out.Alike(from.id, to.id) {
			c.moved(a.prefix.Addr(), from, to)
		}
	}
	c.release(was)
	return true
}

// classLike gives the class of addresses of this identity that are alike in all else to
// those of another class, which is of one identity too and not of this node; or nil.
func (id *identity) classLike(of *class) *class {
	for _, cl := range id.classes {
		if len(cl.identities) == 1 && !cl.hosted && cl.conflict == of.conflict && slices.Equal(cl.nets, of.nets) && slices.Equal(cl.slices, of.slices) {
			return cl
		}
	}
	return nil
}

// newClassLike makes it.
func (c *Compiler) newClassLike(of *class, id *identity) *class {
	atoms := append(c.scratch[:0], id.atom)
	for _, n := range of.nets {
		atoms = append(atoms, n.atom)
	}
	for _, s := range of.slices {
		atoms = append(atoms, s.atom)
	}
	atoms = c.sorted(atoms)
	cl := c.newClass(string(c.key), atoms)
	delete(c.fresh, cl) // the terms of this commit are yet to come
	return cl
}

// moved notes what it does to decisions that an address left one class for another.
func (c *Compiler) moved(addr netip.Addr, from, to *class) {
	narrows, widens := c.differ(from, to, nil)
	c.effect.Widened = c.effect.Widened || widens
	if narrows {
		c.narrowed = append(c.narrowed, addr)
	}
}
