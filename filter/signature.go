package filter

import (
	"encoding/binary"
	"slices"

	"github.com/postern-project/postern/filter/flow"
)

// term is a set of addresses that some side of some rule asks for. Term 0 is
// every address.
type term uint32

// offerSet is a named port or a service as some side of some rule sees it. 0 is
// none.
type offerSet uint32

// signature is everything that rules can tell about an address: the terms that
// hold for it and what it offers. Addresses of one signature are one to every
// rule, whatever else is different about them, so compiled segments are indexed
// by signature. Signatures are immutable.
type signature struct {
	terms []term // rising; without 0
	// offer is rising: set<<24 | protocol<<16 | port.
	offer []uint64
}

func (s *signature) holds(t term) bool {
	if t == 0 {
		return true
	}
	_, found := slices.BinarySearch(s.terms, t)
	return found
}

func offerKey(set offerSet, p flow.Proto, port uint16) uint64 {
	return uint64(set)<<24 | uint64(p)<<16 | uint64(port)
}

func (s *signature) offers(set offerSet, p flow.Proto, port uint16) bool {
	_, found := slices.BinarySearch(s.offer, offerKey(set, p, port))
	return found
}

// ports appends what a set offers for a protocol. A nil signature offers nothing.
func (s *signature) ports(to []interval, set offerSet, p flow.Proto) []interval {
	if s == nil {
		return to
	}
	i, _ := slices.BinarySearch(s.offer, offerKey(set, p, 0))
	for ; i < len(s.offer) && s.offer[i]>>16 == uint64(set)<<8|uint64(p); i++ {
		to = append(to, interval{uint16(s.offer[i]), uint16(s.offer[i])})
	}
	return to
}

// appendKey appends what tells signatures apart.
func (s *signature) appendKey(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.terms)))
	for _, t := range s.terms {
		b = binary.AppendUvarint(b, uint64(t))
	}
	for _, o := range s.offer {
		b = binary.AppendUvarint(b, o)
	}
	return b
}
