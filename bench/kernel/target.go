package main

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// queueThroughTarget appends the rule "queue num 100" to the table of rules, by way
// of the xt target: the nft program cannot write it.
func queueThroughTarget() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	info := make(xt.Unknown, 8) // struct xt_NFQ_info_v3
	binary.NativeEndian.PutUint16(info[0:], queueNumber)
	binary.NativeEndian.PutUint16(info[2:], 1)
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: "t"}
	c.AddRule(&nftables.Rule{Table: t, Chain: &nftables.Chain{Table: t, Name: "c"}, Exprs: []expr.Any{&expr.Target{Name: "NFQUEUE", Rev: 3, Info: &info}}})
	return c.Flush()
}
