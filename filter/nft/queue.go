package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// QueueVia is the kernel facility that hands packets to the queue.
type QueueVia uint8

const (
	// ViaNone: the kernel has neither.
	ViaNone QueueVia = iota
	// ViaNative is the nft queue expression (CONFIG_NFT_QUEUE).
	ViaNative
	// ViaTarget is the xt NFQUEUE target (CONFIG_NETFILTER_XT_TARGET_NFQUEUE with
	// CONFIG_NFT_COMPAT).
	ViaTarget
)

func (v QueueVia) String() string {
	return [...]string{"none", "native", "xt"}[min(int(v), 2)]
}

// Queues is a range of queue numbers, First to First+Count-1. The kernel spreads
// flows over them by a hash of the address pair, so all packets of one pair of
// addresses, in both directions, meet one queue.
type Queues struct{ First, Count uint16 }

// statement is "queue num FIRST-LAST", and with bypass "flags bypass": packets go on where
// nobody has bound the queue.
func (q Queues) statement(via QueueVia, bypass bool) exprs {
	const xtBypass = 1 // NFQ_FLAG_BYPASS of the same header
	if via == ViaNative {
		e := &expr.Queue{Num: q.First, Total: q.Count}
		if bypass {
			e.Flag = expr.QueueFlagBypass
		}
		return exprs{e}
	}
	// struct xt_NFQ_info_v3 (uapi linux/netfilter/xt_NFQUEUE.h): u16 queuenum,
	// u16 queues_total, u16 flags, padded to the 8 bytes of XT_ALIGN.
	info := make(xt.Unknown, 8)
	binary.NativeEndian.PutUint16(info[0:], q.First)
	binary.NativeEndian.PutUint16(info[2:], q.Count)
	if bypass {
		binary.NativeEndian.PutUint16(info[4:], xtBypass)
	}
	return exprs{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}
}

// ErrNoQueue is returned where the kernel can hand packets to no queue.
var ErrNoQueue = errors.New("the kernel has neither the nft queue expression (nft_queue) nor the NFQUEUE target (xt_NFQUEUE with nft_compat)")

// Probe tells what the kernel offers, native first, by trying.
func Probe(c *Conn) (QueueVia, error) {
	var last error
	for _, via := range []QueueVia{ViaNative, ViaTarget} {
		err := Try(c, via)
		if err == nil {
			return via, nil
		}
		if errors.Is(err, unix.EPERM) {
			return ViaNone, fmt.Errorf("probe nftables: %w", err)
		}
		last = err
	}
	return ViaNone, fmt.Errorf("%w (last answer: %v)", ErrNoQueue, last)
}

// Try tells whether the kernel takes a rule that queues in this way. It makes a
// table of its own with a regular chain, which no packet ever sees, and removes it
// in the same transaction. The kernel loads the module it needs, if there is one.
func Try(c *Conn, via QueueVia) error {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "postern-probe"})
	ch := c.AddChain(&nftables.Chain{Table: t, Name: "probe"})
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: Queues{Count: 1}.statement(via, false)})
	c.DelTable(t)
	return c.Flush()
}
