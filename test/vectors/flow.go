package vectors

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/filter/flow"
)

// Chain says which part of the path a flow is judged by.
type Chain string

const (
	// Both combines the sender's egress and the receiver's ingress.
	Both Chain = ""
	// IngressOnly and EgressOnly judge one end.
	IngressOnly Chain = "ingress"
	EgressOnly  Chain = "egress"
	// L7 is the answer of the application layer.
	L7 Chain = "l7"
	// Host endpoint chains of spec section 5.4: normal, forwarded, untracked and
	// before destination NAT. The name of the host endpoint follows a colon.
	HostIn       Chain = "hep-in"
	HostOut      Chain = "hep-out"
	ForwardIn    Chain = "hepf-in"
	ForwardOut   Chain = "hepf-out"
	UntrackedIn  Chain = "hepu-in"
	UntrackedOut Chain = "hepu-out"
	PreDNATIn    Chain = "hepp-in"
)

// answers are the words that may stand after => for each chain.
func (c Chain) answers() []string {
	switch c {
	case Both, IngressOnly, EgressOnly:
		return []string{"allow", "deny"}
	case L7:
		return []string{"OK", "PERMISSION_DENIED", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN"}
	case HostIn, HostOut, ForwardIn, ForwardOut, UntrackedIn, UntrackedOut, PreDNATIn:
		return []string{"allow", "deny", "none"}
	default:
		return nil
	}
}

// host tells whether the chain belongs to a host endpoint.
func (c Chain) host() bool { return strings.HasPrefix(string(c), "hep") }

// defaultSourcePort is the source port of a flow that states none: an ephemeral
// one, below the end of the range 1:40000 that the random vectors use.
const defaultSourcePort = 33000

// Flow is one line of a vector: a packet and what must become of it.
type Flow struct {
	Text     string // as written
	Src, Dst string // a pod's name, "name.6" or an address

	Proto              flow.Proto
	Ported             bool
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8

	Chain        Chain
	HostEndpoint string // for the host endpoint chains

	// Application layer. From and To are the principals; empty means plain text.
	From, To     string
	Method, Path string // both empty for a connection that is not HTTP

	Want     string
	Upstream string // what Calico answers, empty if the same
}

// ParseFlow reads
//
//	<src> -> <dst> <proto>[/<dport>] [sport=n] [@chain [from=…] [to=…] [m=… p=…]] => <expected> [!<upstream>]
func ParseFlow(text string) (Flow, error) {
	f := Flow{Text: text}
	words := strings.Fields(text)
	arrow := slices.Index(words, "=>")
	if len(words) < 4 || words[1] != "->" || arrow < 4 {
		return f, fmt.Errorf("flow %q: want <src> -> <dst> <proto>[/<dport>] [sport=n] [@chain] => <expected> [!<upstream>]", text)
	}
	f.Src, f.Dst = words[0], words[2]
	err := errors.Join(f.protocol(words[3]), f.options(words[4:arrow]), f.answer(words[arrow+1:]))
	if err != nil {
		return f, fmt.Errorf("flow %q: %w", text, err)
	}
	return f, nil
}

// protocol reads "tcp/80", "icmp:8", "icmp:3/4", "udplite" or "47".
func (f *Flow) protocol(word string) error {
	name, types, hasTypes := strings.Cut(word, ":")
	var port string
	hasPort := false
	if !hasTypes {
		name, port, hasPort = strings.Cut(word, "/")
	}
	var err error
	if f.Proto, err = flow.ParseProto(name); err != nil {
		return err
	}
	switch {
	case hasTypes && f.Proto != flow.ICMP && f.Proto != flow.ICMPv6:
		return fmt.Errorf("protocol %q: only icmp and icmpv6 have a type", word)
	case hasTypes:
		return f.icmp(types)
	case hasPort && !f.Proto.HasPorts():
		return fmt.Errorf("protocol %q: only tcp, udp and sctp have ports", word)
	case hasPort:
		f.Ported, f.SrcPort = true, defaultSourcePort
		f.DstPort, err = parsePort(port)
		return err
	}
	return nil
}

func (f *Flow) icmp(types string) error {
	typ, code, _ := strings.Cut(types, "/")
	t, err := strconv.ParseUint(typ, 10, 8)
	if err != nil {
		return fmt.Errorf("ICMP type %q: want a number from 0 to 255", typ)
	}
	f.ICMPType = uint8(t)
	if typ == types {
		return nil
	}
	c, err := strconv.ParseUint(code, 10, 8)
	if err != nil {
		return fmt.Errorf("ICMP code %q: want a number from 0 to 255", code)
	}
	f.ICMPCode = uint8(c)
	return nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("port %q: want a number from 0 to 65535", s)
	}
	return uint16(n), nil
}

// options reads what stands between protocol and "=>", in any order, each once.
func (f *Flow) options(words []string) error {
	seen := map[string]bool{}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if strings.HasPrefix(w, "@") {
			key, value, ok = "@", w[1:], true
		}
		if !ok || value == "" {
			return fmt.Errorf("option %q: want sport=n, @chain, from=, to=, m= or p=", w)
		}
		if seen[key] {
			return fmt.Errorf("option %q: given twice", w)
		}
		seen[key] = true
		if err := f.option(key, value); err != nil {
			return err
		}
	}
	for _, key := range []string{"from", "to", "m", "p"} {
		if seen[key] && f.Chain != L7 {
			return fmt.Errorf("option %s=: only @l7 has it", key)
		}
	}
	if seen["m"] != seen["p"] {
		return errors.New("options m= and p=: a request has both")
	}
	return nil
}

func (f *Flow) option(key, value string) (err error) {
	switch key {
	case "@":
		return f.chain(value)
	case "sport":
		if !f.Ported {
			return fmt.Errorf("option sport=%s: the packet has no ports", value)
		}
		f.SrcPort, err = parsePort(value)
	case "from":
		f.From = value
	case "to":
		f.To = value
	case "m":
		f.Method = value
	case "p":
		f.Path = value
	default:
		err = fmt.Errorf("option %s=%s: unknown", key, value)
	}
	return err
}

func (f *Flow) chain(value string) error {
	name, host, hasHost := strings.Cut(value, ":")
	f.Chain, f.HostEndpoint = Chain(name), host
	switch {
	case f.Chain == Both || f.Chain.answers() == nil:
		return fmt.Errorf("chain @%s: unknown", value)
	case f.Chain.host() && host == "":
		return fmt.Errorf("chain @%s: want the host endpoint's name after a colon", value)
	case !f.Chain.host() && hasHost:
		return fmt.Errorf("chain @%s: takes no name", value)
	}
	return nil
}

// answer reads "<expected> [!<upstream>]".
func (f *Flow) answer(words []string) error {
	if len(words) == 0 || len(words) > 2 {
		return errors.New("want <expected> [!<upstream>] after =>")
	}
	f.Want = words[0]
	if len(words) == 2 {
		upstream, ok := strings.CutPrefix(words[1], "!")
		if !ok {
			return fmt.Errorf("%q after the expected answer: want !<upstream>", words[1])
		}
		f.Upstream = upstream
	}
	for _, a := range []string{f.Want, f.Upstream} {
		if a != "" && !slices.Contains(f.Chain.answers(), a) {
			return fmt.Errorf("answer %q: want one of %s", a, strings.Join(f.Chain.answers(), ", "))
		}
	}
	return nil
}

// tuple puts the flow on addresses. find gives the addresses of a pod by name.
func (f *Flow) tuple(find func(name string) ([]netip.Addr, error)) (flow.Tuple, error) {
	src, err := address(f.Src, find)
	if err != nil {
		return flow.Tuple{}, err
	}
	dst, err := address(f.Dst, find)
	if err != nil {
		return flow.Tuple{}, err
	}
	t := flow.Tuple{
		Src: src, Dst: dst, Proto: f.Proto,
		Ported: f.Ported, SrcPort: f.SrcPort, DstPort: f.DstPort,
		ICMPType: f.ICMPType, ICMPCode: f.ICMPCode,
	}
	if !t.Valid() {
		return t, fmt.Errorf("%s and %s are of two families", src, dst)
	}
	return t, nil
}

// address resolves one end: an address, else a pod's name, else "name.6".
func address(end string, find func(string) ([]netip.Addr, error)) (netip.Addr, error) {
	if a, err := netip.ParseAddr(end); err == nil {
		return a.Unmap(), nil
	}
	want6 := false
	addrs, err := find(end)
	if name, ok := strings.CutSuffix(end, ".6"); ok && err != nil {
		want6 = true
		addrs, err = find(name)
	}
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if a.Is6() == want6 {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %q has no address of the wanted family; write name.6 for IPv6", end)
}
