package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
)

// Config is what the daemon runs with, or would.
type Config struct {
	Mask        uint32 // of the marks
	Queues      nft.Queues
	QueueLength uint32
}

// Facts are what was found on a host.
type Facts struct {
	Config

	Kernel       string // release
	Capabilities uint64 // effective, by bit
	InitialUser  bool   // in the first user namespace
	Features     []nft.Feature
	FeaturesErr  error // why features could not be tried
	Survey       nft.Survey
	SurveyErr    error
	QueueErr     error    // why no queue could be bound; nil if one was
	Bound        []uint16 // queues that some process listens on
	Postern      string   // who holds the lock of the postern here, as nfq.OwnerText says; empty if nobody does
	Rules        []Rule   // routing rules that look at packet marks
	RulesErr     error
	Legacy       []string          // tables of iptables-legacy, as "ip filter"
	Bridged      []string          // bridges with ports
	Sysctls      map[string]string // by name with dots; absent if the kernel has no such
	Drops        ConntrackDrops
	ClockSynced  bool
	Daemon       Daemon
}

// Rule is a routing rule with a mark.
type Rule struct {
	Text string
	Mask uint32
}

// ConntrackDrops are conntrack's own counters, over all processors.
type ConntrackDrops struct{ Drop, EarlyDrop uint64 }

// Daemon is what is known of a running daemon.
type Daemon struct {
	Socket string // empty if it is not to be asked
	Exists bool   // there is a socket
	Err    error  // why it does not answer
	// Valid if it answers.
	Enforcing bool
	Degraded  []string
}

func (d *Daemon) answers() bool { return d.Socket != "" && d.Exists && d.Err == nil }

// Look gathers the facts of the network namespace of the calling thread, which must be
// locked if it is not the process's. What is known of the daemon is left to the caller.
func Look(cfg Config) *Facts {
	f := &Facts{Config: cfg, Sysctls: map[string]string{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	f.Capabilities, f.InitialUser = capabilities()
	f.lookNetfilter()
	f.lookRules()
	f.Bound = boundQueues()
	f.Postern = nfq.OwnerText(nfq.LockQueue)
	f.QueueErr = f.tryQueue()
	// After these, which load conntrack where it is a module.
	for _, name := range sysctls {
		if b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			f.Sysctls[name] = strings.TrimSpace(string(b))
		}
	}
	for _, family := range []string{"ip", "ip6"} {
		if b, err := os.ReadFile("/proc/thread-self/net/" + family + "_tables_names"); err == nil {
			for t := range strings.FieldsSeq(string(b)) {
				f.Legacy = append(f.Legacy, family+" "+t)
			}
		}
	}
	f.Bridged = bridges()
	f.Drops = conntrackDrops()
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		f.ClockSynced = state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	}
	return f
}

// sysctls are those that Judge looks at, and what a support archive has of them.
var sysctls = []string{
	"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv6.conf.all.disable_ipv6",
	"net.ipv4.conf.all.rp_filter", "net.core.rmem_max",
	"net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_buckets",
	"net.netfilter.nf_conntrack_tcp_loose", "net.netfilter.nf_conntrack_tcp_be_liberal", "net.netfilter.nf_conntrack_acct",
	"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables",
}

func (f *Facts) lookNetfilter() {
	c, err := nft.Dial()
	if err != nil {
		f.FeaturesErr, f.SurveyErr = err, err
		return
	}
	defer c.CloseLasting()
	// Tried with any mask that is one: what is wrong with the given is its own finding.
	marks, err := nft.NewMarks(f.Mask)
	if err != nil {
		marks, _ = nft.NewMarks(nft.DefaultMask)
	}
	via := nft.ViaNative
	if nft.Try(c, via) != nil {
		via = nft.ViaTarget
	}
	f.Features, f.FeaturesErr = nft.TryFeatures(c, nft.Config{Marks: marks, Queues: f.Queues, Via: via, VXLANPort: nft.DefaultVXLANPort})
	f.Survey, f.SurveyErr = nft.LookAround(c)
}

// tryQueue binds a queue that nobody uses, and closes it. Packets of other queues are
// not touched.
func (f *Facts) tryQueue() error {
	taken := map[uint16]bool{}
	for _, n := range f.Bound {
		taken[n] = true
	}
	for _, q := range f.Survey.Queues {
		for n := int(q.First); n <= int(q.Last); n++ {
			taken[uint16(n)] = true
		}
	}
	for n := 65535; n > 65000; n-- {
		if taken[uint16(n)] || n >= int(f.Queues.First) && n < int(f.Queues.First)+int(f.Queues.Count) {
			continue
		}
		q, err := nfq.Open(nfq.Config{Queue: uint16(n), MaxLen: 16, CopyRange: nfq.DefaultCopyRange}, &filter.Engine{})
		if err != nil {
			return err
		}
		return q.Close()
	}
	return errors.New("no free queue number was found")
}

func (f *Facts) lookRules() {
	for family, name := range map[int]string{netlink.FAMILY_V4: "ip", netlink.FAMILY_V6: "ip -6"} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			f.RulesErr = fmt.Errorf("list routing rules: %w", err)
			return
		}
		for _, r := range rules {
			if r.Mark == 0 && r.Mask == nil {
				continue
			}
			mask := ^uint32(0)
			if r.Mask != nil {
				mask = *r.Mask
			}
			f.Rules = append(f.Rules, Rule{fmt.Sprintf("%s rule %d: fwmark %#x/%#x lookup %d", name, r.Priority, r.Mark, mask, r.Table), mask})
		}
	}
}

// boundQueues reads the numbers of queues that have a listener.
func boundQueues() (numbers []uint16) {
	b, err := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 0 {
			if n, err := strconv.ParseUint(fields[0], 10, 16); err == nil {
				numbers = append(numbers, uint16(n))
			}
		}
	}
	return numbers
}

// bridges gives the bridges that have ports.
func bridges() (names []string) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	ports := map[int]int{}
	for _, l := range links {
		ports[l.Attrs().MasterIndex]++
	}
	for _, l := range links {
		if l.Type() == "bridge" && ports[l.Attrs().Index] > 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// conntrackDrops sums /proc/net/stat/nf_conntrack: a header, then a line of
// hexadecimal numbers for each processor.
func conntrackDrops() (d ConntrackDrops) {
	b, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
	if err != nil {
		return d
	}
	var header []string
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if header == nil {
			header = fields
			continue
		}
		for i, text := range fields[:min(len(fields), len(header))] {
			n, err := strconv.ParseUint(text, 16, 64)
			switch {
			case err != nil:
			case header[i] == "drop":
				d.Drop += n
			case header[i] == "early_drop":
				d.EarlyDrop += n
			}
		}
	}
	return d
}

// capabilities reads the effective ones, and whether they are those of the first user
// namespace.
func capabilities() (effective uint64, initialUser bool) {
	if b, err := os.ReadFile("/proc/thread-self/status"); err == nil {
		for line := range strings.Lines(string(b)) {
			if text, ok := strings.CutPrefix(line, "CapEff:"); ok {
				effective, _ = strconv.ParseUint(strings.TrimSpace(text), 16, 64)
			}
		}
	}
	b, err := os.ReadFile("/proc/thread-self/uid_map")
	fields := strings.Fields(string(b))
	return effective, err == nil && len(fields) == 3 && fields[0] == "0" && fields[1] == "0" && fields[2] == "4294967295"
}
