package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"unsafe"

	"github.com/postern-project/postern/filter/policy"
)

// Most changes of a large cluster are pods of other nodes that get other labels: a
// rollout, a controller that marks one. Nothing changes then but the class of their
// addresses, from one that has the identity they had to one that has the new identity
// and is alike in all else. relabel makes that change alone, in a fraction of the time
// that taking the pod out and putting it back takes.

// relabelled is a pod's object before and after a change.
type relabelled struct{ old, now *policy.Endpoint }

// together is how many of them are followed at a time, step by step: what a step needs
// of one pod is loaded while it waits for what it needs of another, and what it loaded is
// still in the first-level cache for the next step.
const together = 32

// relabelling is a change that is being followed.
type relabelling struct {
	relabelled
	shape shape // of now
	pod   *pod
	was   *identity // nil if it stays
	at    int       // of its first address in relabellings.moves
}

// move is an address of it.
type move struct {
	*address
	from, to *class
}

// relabellings is scratch of relabel.
type relabellings struct {
	relabelling [together]relabelling
	moves       []move
}

// relabel follows the changes of pods that are of that kind, and calls other for those
// that are not. It is called before anything else of an update is done, when every class
// is as it was committed.
func (c *Compiler) relabel(list []relabelled, other func(relabelled)) {
	for len(list) > 0 {
		n := 0
		c.moves = c.moves[:0]
		for len(list) > 0 && n < together {
			if r := list[0]; c.sameButLabels(r, &c.relabelling[n]) {
				n++
			} else {
				other(r)
			}
			list = list[1:]
		}
		of := c.findRelabelled(c.relabelling[:n], other)
		c.reidentify(of)
		c.reclassify(of)
		clear(c.relabelling[:n])
		clear(c.moves)
	}
}

// sameButLabels tells whether nothing else changed of a pod that has addresses, and looks
// these up.
func (c *Compiler) sameButLabels(r relabelled, to *relabelling) bool {
	old, now := r.old, r.now
	if len(now.Addrs) == 0 || !sameString(old.Name, now.Name) || !sameString(old.Namespace, now.Namespace) ||
		!sameString(old.ServiceAccount, now.ServiceAccount) || !sameString(old.Node, now.Node) || !sameAddrs(old.Addrs, now.Addrs) {
		return false
	}
	to.relabelled, to.shape, to.at = r, shapeOf(now), len(c.moves)
	for i := range now.Addrs {
		c.moves = append(c.moves, move{address: c.at(now.Addrs[i])})
	}
	return true
}

// sameAddrs is slices.Equal, which compares addresses through a call.
func sameAddrs(a, b []netip.Addr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// findRelabelled finds the pods, and leaves those whose addresses are not theirs alone.
func (c *Compiler) findRelabelled(list []relabelling, other func(relabelled)) []relabelling {
	n := 0
	for i := range list {
		r := &list[i]
		for _, m := range r.moves(c) {
			a := m.address
			if a == nil || a.pod == nil || a.pod.endpoint != r.old || a.pod.hosted || len(a.others) > 0 || a.dirty || len(a.class.identities) != 1 {
				r.pod = nil
				break
			}
			r.pod = a.pod
		}
		if r.pod == nil {
			other(r.relabelled)
			continue
		}
		if n != i {
			list[n] = *r
		}
		n++
	}
	return list[:n]
}

// moves gives the addresses of a pod.
func (r *relabelling) moves(c *Compiler) []move { return c.moves[r.at : r.at+len(r.now.Addrs)] }

// sameString is == where both are mostly the same in memory, too.
func sameString(a, b string) bool {
	return len(a) == len(b) && (unsafe.StringData(a) == unsafe.StringData(b) || a == b)
}

// reidentify gives the pods the identities that they have now, and their addresses the
// classes.
func (c *Compiler) reidentify(list []relabelling) {
	for i := range list {
		r := &list[i]
		was := r.pod.identity
		id := c.identityAfter(was, r)
		r.pod.endpoint, r.pod.identity = r.now, id
		if id == was {
			continue
		}
		r.was = was
		id.objects++
		moves := r.moves(c)
		for i := range moves {
			m := &moves[i]
			m.from = m.class
			if m.to = id.classLike(m.from); m.to == nil {
				m.to = c.newClassLike(m.from, id)
			}
			m.class = m.to
			m.to.prefixes++
		}
	}
}

// identityAfter is identityOfPod for a pod of an identity that is relabelled: pods of one
// workload mostly go to the same one, which spares looking it up.
func (c *Compiler) identityAfter(was *identity, r *relabelling) *identity {
	if next := was.next; next != nil && next.has(&r.shape) {
		return next
	}
	id := c.identityOfPod(r.now)
	if id != was {
		was.next = id
	}
	return id
}

// reclassify tells the Builder, and counts what the pods and their addresses were.
func (c *Compiler) reclassify(list []relabelling) {
	for i := range list {
		r := &list[i]
		if r.was == nil {
			continue
		}
		for _, m := range r.moves(c) {
			c.leave(m.from)
			if err := c.out.MoveAddress(m.prefix, m.to.id); err != nil {
				c.failed = fmt.Errorf("address %s: %w", m.prefix, err)
			}
			if !c.out.Alike(m.from.id, m.to.id) {
				c.moved(m.prefix.Addr(), m.from, m.to)
			}
		}
		c.release(r.was)
	}
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
	cl.made = 0 // the terms of this commit are yet to come
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
