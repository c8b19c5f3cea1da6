package dataplane

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/postern-project/postern/conntrack"
	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/nft"
)

// Conntrack is Flows in the kernel. It is for one goroutine at a time, and for one
// network namespace.
type Conntrack struct {
	Conn  *conntrack.Conn
	Marks nft.Marks
	// Keep is Options.Keep: an accepted flow has its mark until it ends, of whatever epoch it
	// is (nft.Config.KeepEstablished).
	Keep bool
}

// Forget is part of Flows.
func (c *Conntrack) Forget(half int) error {
	value, mask := c.Marks.Half(half)
	_, err := c.Conn.Sweep(conntrack.Filter{Mark: value, Mask: mask}, func(e *conntrack.Entry) conntrack.Action {
		if _, accepted, _ := c.Marks.Judged(e.Mark); c.Keep && accepted {
			return conntrack.Keep()
		}
		return conntrack.SetMark(0, c.Marks.Mask())
	})
	return err
}

// Judge is part of Flows. Flows that this host began are left alone: policy is not about
// them.
func (c *Conntrack) Judge(rs *filter.Ruleset, epoch uint32, dirty []netip.Addr, all bool, gone []netip.Addr) error {
	own, err := ownAddresses()
	if err != nil {
		return err
	}
	isDirty, isGone := among(dirty), among(gone)
	value, mask := c.Marks.AnyHalf()
	_, err = c.Conn.Sweep(conntrack.Filter{Mark: value, Mask: mask}, func(e *conntrack.Entry) conntrack.Action {
		t := e.Tuple()
		_, accepted, _ := c.Marks.Judged(e.Mark)
		switch {
		case isGone(t.Src) || isGone(t.Dst):
			return conntrack.Delete()
		case !accepted || own[t.Src] || !all && !isDirty(t.Src) && !isDirty(t.Dst):
			return conntrack.Keep()
		case t.Proto == flow.TCP && t.DstPort >= nft.EphemeralPort && t.SrcPort < nft.EphemeralPort:
			// Conntrack may have it the wrong way round. The verdict loop knows what to do,
			// once there is a packet.
			return conntrack.SetMark(0, c.Marks.Mask())
		}
		switch d := rs.Decide(t); {
		case d.Reason == filter.NoLocalEndpoint:
			return conntrack.SetMark(0, c.Marks.Mask()) // no business of ours any more
		case d.Verdict == filter.Accept:
			return conntrack.SetMark(c.Marks.Flow(epoch), c.Marks.Mask())
		default:
			// Not deleted: conntrack would pick a TCP connection up again in its middle, and
			// whoever speaks first would count as the one that began it.
			return conntrack.SetMark(c.Marks.Denied(epoch), c.Marks.Mask())
		}
	})
	return err
}

func among(addrs []netip.Addr) func(netip.Addr) bool {
	set := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		set[a] = true
	}
	return func(a netip.Addr) bool { return set[a] }
}

// ownAddresses are those of this host.
func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	own := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own, nil
}
