package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Watcher notices when somebody else changes postern's table or removes it, as
// "nft flush ruleset" does and the restart of many a firewall.
//
// The kernel tells of every transaction (NFNLGRP_NFTABLES), by whom it was, and numbers them.
// Twice a second the watcher asks for the last number, so that news which got lost are
// missed.
type Watcher struct {
	news, ask *netlink.Conn
	ours      []uint32 // port ids of who may change the table
	seen      uint32   // the last transaction of which there was news
	foreign   bool     // somebody else's changes of the transaction that the news are at
}

// Damage is a change of the table that was not ours.
type Damage struct {
	// By names who made it, such as "process 7 (nft)"; empty if that is not known.
	By string
	// Lost: news got lost, and with them perhaps that of a change.
	Lost bool
}

// watchEvery is how often the number of the last transaction is asked for. What got lost
// is noticed when quietRounds in a row had no news: where this process gets little time, news
// that are late are not lost, and to repair for them makes more.
const (
	watchEvery  = 250 * time.Millisecond
	quietRounds = 2
)

// newsBuffer is the receive buffer in bytes: a proxy that lists ten thousands of
// services in one transaction makes megabytes of news.
const newsBuffer = 8 << 20

// NewWatcher watches the caller's network namespace from now on. Changes that are made over
// the connections ours are no damage.
func NewWatcher(ours ...*Conn) (w *Watcher, err error) {
	w = &Watcher{}
	for _, c := range ours {
		w.ours = append(w.ours, c.port)
	}
	defer func() {
		if err != nil {
			w.Close()
			err = fmt.Errorf("watch nftables: %w", err)
		}
	}()
	for _, c := range []**netlink.Conn{&w.news, &w.ask} {
		if *c, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return w, err
		}
	}
	if err = w.news.SetReadBuffer(newsBuffer); err != nil {
		return w, err
	}
	if err = w.news.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return w, err
	}
	w.seen, err = w.generation()
	return w, err
}

// Close ends it. Run must have returned.
func (w *Watcher) Close() error {
	var errs []error
	for _, c := range []*netlink.Conn{w.news, w.ask} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Run tells damaged of every damage, on the calling goroutine, until ctx ends, and
// returns nil then. An error means that the kernel cannot be asked any more.
func (w *Watcher) Run(ctx context.Context, damaged func(Damage)) error {
	expect, quiet := w.seen, 0
	for ctx.Err() == nil {
		heard, err := w.listen(time.Now().Add(watchEvery), damaged)
		if err != nil {
			return fmt.Errorf("watch nftables: %w", err)
		}
		if quiet++; heard || int32(w.seen-expect) >= 0 {
			quiet = 0
		}
		if quiet == quietRounds {
			w.seen, quiet = expect, 0
			damaged(Damage{Lost: true})
		}
		now, err := w.generation()
		if err != nil {
			return fmt.Errorf("watch nftables: %w", err)
		}
		expect = now
	}
	return nil
}

// listen takes news until then, and tells whether there were any.
func (w *Watcher) listen(until time.Time, damaged func(Damage)) (heard bool, err error) {
	if err := w.news.SetReadDeadline(until); err != nil {
		return false, err
	}
	for {
		ms, err := w.news.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return heard, nil
		case errors.Is(err, unix.ENOBUFS):
			w.foreign = false
			damaged(Damage{Lost: true})
			continue
		case err != nil:
			return heard, err
		}
		heard = true
		for _, m := range ms {
			if d, is := w.take(m); is {
				damaged(d)
			}
		}
		if time.Now().After(until) { // there may be no end of news
			return heard, nil
		}
	}
}

// take looks at one piece of news. Those of a transaction come one after the other, and
// its number, with who made it, comes last.
func (w *Watcher) take(m netlink.Message) (d Damage, is bool) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return d, false
	}
	if m.Header.Type&0xff != unix.NFT_MSG_NEWGEN {
		ours := slices.Contains(w.ours, m.Header.PID)
		w.foreign = w.foreign || !ours && m.Data[0] == unix.NFPROTO_INET && tableOf(m.Data[4:]) == TableName
		return d, false
	}
	g, ok := readGeneration(m.Data)
	if !ok {
		return Damage{Lost: true}, true
	}
	is, w.foreign = w.foreign, false
	step := int32(g.id - w.seen)
	if step <= 0 { // of before the watcher began
		return Damage{By: g.by}, is
	}
	w.seen = g.id
	if step > 1 && !is {
		return Damage{Lost: true}, true
	}
	return Damage{By: g.by}, is
}

// tableOf reads the name of the table that a piece of news is about: attribute 1 of every
// kind of them (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and so on in uapi
// linux/netfilter/nf_tables.h).
func tableOf(attrs []byte) string {
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return ""
	}
	for ad.Next() {
		if ad.Type() == unix.NFTA_TABLE_NAME {
			return ad.String()
		}
	}
	return ""
}

type generation struct {
	id uint32
	by string
}

// readGeneration reads NFT_MSG_NEWGEN: NFTA_GEN_ID, NFTA_GEN_PROC_PID and
// NFTA_GEN_PROC_NAME (enum nft_gen_attributes).
func readGeneration(data []byte) (g generation, ok bool) {
	if len(data) < 4 {
		return g, false
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return g, false
	}
	ad.ByteOrder = binary.BigEndian
	pid, name := uint32(0), ""
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_GEN_ID:
			g.id, ok = ad.Uint32(), true
		case unix.NFTA_GEN_PROC_PID:
			pid = ad.Uint32()
		case unix.NFTA_GEN_PROC_NAME:
			name = ad.String()
		}
	}
	if pid != 0 {
		g.by = fmt.Sprintf("process %d (%s)", pid, name)
	}
	return g, ok && ad.Err() == nil
}

// generation asks for the number of the last transaction.
func (w *Watcher) generation() (id uint32, err error) {
	ms, err := w.ask.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	for _, m := range ms {
		if g, ok := readGeneration(m.Data); ok {
			return g.id, nil
		}
	}
	return 0, errors.New("ask for the generation: no answer")
}
