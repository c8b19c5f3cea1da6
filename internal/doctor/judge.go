package doctor

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-project/postern/filter/nft"
)

// judge collects findings.
type judge struct {
	*Facts
	found []Finding
}

// Judge makes findings of facts, in an order that stays the same.
func Judge(f *Facts) []Finding {
	j := &judge{Facts: f}
	for _, look := range []func(){
		j.capabilities, j.features, j.queue, j.hooks, j.marks, j.conntrack,
		j.forwarding, j.bridges, j.reversePath, j.buffers, j.clock, j.daemon,
	} {
		look()
	}
	return j.found
}

func (j *judge) add(check string, level Level, found, means, do string) {
	j.found = append(j.found, Finding{check, level, found, means, do})
}

func (j *judge) ok(check, format string, args ...any) {
	j.add(check, OK, fmt.Sprintf(format, args...), "", "")
}

func (j *judge) has(capability int) bool { return j.Capabilities&(1<<capability) != 0 }

func (j *judge) capabilities() {
	if !j.has(unix.CAP_NET_ADMIN) {
		j.add("capabilities", Fail, "this process has no CAP_NET_ADMIN",
			"the kernel lets it neither make rules nor bind a queue, and much of what follows could not be looked at",
			"run as root, or give the unit or container the capability NET_ADMIN")
		return
	}
	j.ok("capabilities", "CAP_NET_ADMIN")
}

func (j *judge) features() {
	if j.FeaturesErr != nil {
		j.add("kernel", Fail, "kernel "+j.Kernel+": "+j.FeaturesErr.Error(), "it is not known whether the kernel can enforce",
			"run as root in the host's network namespace; modprobe nf_tables")
		return
	}
	var refused []string
	queues := 0
	for _, f := range j.Features {
		switch {
		case f.Queue && f.Err == nil:
			queues++
		case !f.Queue && f.Err != nil:
			refused = append(refused, f.Name+": "+f.Err.Error())
		}
	}
	switch {
	case queues == 0:
		j.add("kernel", Fail, "kernel "+j.Kernel+" can hand packets to no queue", "nothing can be enforced",
			"load nft_queue, or xt_NFQUEUE and nft_compat (modprobe xt_NFQUEUE); on a kernel of your own set CONFIG_NFT_QUEUE")
	case len(refused) > 0:
		j.add("kernel", Fail, "kernel "+j.Kernel+" refuses "+strings.Join(refused, "; "), "the rule set cannot be loaded",
			"load the module that is named; on a kernel of your own switch it on")
	default:
		j.ok("kernel", "kernel %s takes the whole rule set", j.Kernel)
	}
}

func (j *judge) queue() {
	if j.QueueErr != nil {
		j.add("queue", Fail, "no netfilter queue can be bound: "+j.QueueErr.Error(), "packets would be dropped for want of a listener", "modprobe nfnetlink_queue; run as root")
	} else {
		j.ok("queue", "a netfilter queue can be bound")
	}
	first, last := j.Queues.First, j.Queues.First+j.Queues.Count-1
	for _, q := range j.Survey.Queues {
		if q.First <= last && first <= q.Last {
			j.add("queue.shared", Fail, fmt.Sprintf("%s queues to %d-%d as well", q.Place, q.First, q.Last),
				"postern would judge packets that are not meant for it, and whoever they are meant for gets none", "give postern other numbers (--queue), or that rule")
		}
	}
	if j.Daemon.answers() || j.Postern != "" { // whose they may well be
		return
	}
	for _, n := range j.Bound {
		if n >= first && n <= last {
			j.add("queue.taken", Fail, fmt.Sprintf("some process listens on queue %d, and no postern answers", n), "postern could not start",
				"end that process, or give postern another number (--queue)")
		}
	}
}

func (j *judge) conntrack() {
	limit, err1 := strconv.ParseUint(j.Sysctls["net.netfilter.nf_conntrack_max"], 10, 64)
	count, err2 := strconv.ParseUint(j.Sysctls["net.netfilter.nf_conntrack_count"], 10, 64)
	if err1 != nil || err2 != nil {
		j.add("conntrack", Info, "conntrack is not loaded yet", "postern's rules load it", "")
		return
	}
	used := fmt.Sprintf("%d of %d flows (nf_conntrack_max), %s buckets", count, limit, j.Sysctls["net.netfilter.nf_conntrack_buckets"])
	const do = "raise net.netfilter.nf_conntrack_max, and nf_conntrack_buckets to a quarter of it or more"
	switch {
	case limit > 0 && count*100 >= limit*95:
		j.add("conntrack", Fail, used, "the table is full: the kernel drops new flows, allowed ones too, before anybody judges them", do)
	case limit > 0 && count*100 >= limit*75:
		j.add("conntrack", Warn, used, "the table fills up; when it is full, new flows are dropped", do)
	default:
		j.ok("conntrack", "%s", used)
	}
	if d := j.Drops; d.Drop+d.EarlyDrop > 0 {
		j.add("conntrack.drops", Warn, fmt.Sprintf("so far conntrack dropped %d packets for want of room, and %d flows to make room", d.Drop, d.EarlyDrop),
			"the table was full at some time", do)
	}
	if j.Sysctls["net.netfilter.nf_conntrack_tcp_be_liberal"] == "1" {
		j.add("conntrack.liberal", Info, "nf_conntrack_tcp_be_liberal is 1", "packets outside of a connection's window pass with it, instead of being dropped as invalid",
			"set it to 0 unless something needs it, such as an asymmetric route")
	}
	if j.Sysctls["net.netfilter.nf_conntrack_tcp_loose"] == "0" {
		j.add("conntrack.loose", Info, "nf_conntrack_tcp_loose is 0", "connections that conntrack did not see begin are invalid and dropped: once conntrack was flushed, they have to be opened again",
			"set it to 1 if that is not wanted; postern judges such connections")
	}
}

func (j *judge) forwarding() {
	if j.Sysctls["net.ipv4.ip_forward"] == "0" {
		j.add("forwarding", Warn, "net.ipv4.ip_forward is 0", "this host does not route IPv4: its pods reach nobody but the host", "sysctl -w net.ipv4.ip_forward=1, if pods are routed here")
	} else {
		j.ok("forwarding", "net.ipv4.ip_forward is %s", j.Sysctls["net.ipv4.ip_forward"])
	}
	switch off, ok := j.Sysctls["net.ipv6.conf.all.disable_ipv6"]; {
	case !ok || off == "1":
		j.add("ipv6", Info, "IPv6 is switched off", "there is nothing to enforce on it", "")
	case j.Sysctls["net.ipv6.conf.all.forwarding"] == "0":
		j.add("ipv6", Info, "net.ipv6.conf.all.forwarding is 0", "this host does not route IPv6", "sysctl -w net.ipv6.conf.all.forwarding=1, if pods have IPv6 addresses")
	default:
		j.ok("ipv6", "IPv6 is on and routed")
	}
}

func (j *judge) bridges() {
	if len(j.Bridged) == 0 {
		return
	}
	var off []string
	for _, name := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		if v, ok := j.Sysctls[name]; !ok || v == "0" {
			off = append(off, name)
		}
	}
	bridges := "bridges with ports: " + strings.Join(j.Bridged, ", ")
	if len(off) > 0 {
		j.add("bridges", Warn, bridges+"; "+strings.Join(off, " and ")+" is not 1",
			"pods of the same bridge reach each other without passing any table: no policy holds between them",
			"modprobe br_netfilter; sysctl -w "+strings.Join(off, "=1 ")+"=1; or use a network plugin that routes each pod")
	} else {
		j.ok("bridges", "%s; bridged packets pass the tables", bridges)
	}
	j.add("bridges.spoofing", Info, bridges, "pods of one bridge share a link: the check of source addresses cannot tell them apart", "use macspoofchk of the bridge plugin, or a route for each pod")
}

func (j *judge) reversePath() {
	if rp := j.Sysctls["net.ipv4.conf.all.rp_filter"]; rp != "1" {
		j.ok("rp_filter", "net.ipv4.conf.all.rp_filter is %s; postern checks source addresses itself", rp)
		return
	}
	j.add("rp_filter", Info, "net.ipv4.conf.all.rp_filter is 1 (strict)", "the kernel drops IPv4 packets that it would not answer the same way, whatever --anti-spoof-exempt says", "set it to 0 or 2 if addresses are exempted")
}

// bytesPerPacket is what the queue's socket asks for each waiting packet.
const bytesPerPacket = 1024

func (j *judge) buffers() {
	need := uint64(j.QueueLength) * bytesPerPacket
	have, err := strconv.ParseUint(j.Sysctls["net.core.rmem_max"], 10, 64)
	switch {
	case j.has(unix.CAP_NET_ADMIN) && j.InitialUser:
		j.ok("buffers", "a queue's socket may take %d kB, whatever net.core.rmem_max says", need>>10)
	case err == nil && have < need:
		j.add("buffers", Warn, fmt.Sprintf("net.core.rmem_max is %d, and a queue of %d packets wants %d", have, j.QueueLength, need),
			"in this user namespace that limit holds: the kernel drops packets before the queue is full", "raise net.core.rmem_max, or lower --queue-length")
	default:
		j.ok("buffers", "net.core.rmem_max is %d", have)
	}
}

func (j *judge) clock() {
	if j.ClockSynced {
		j.ok("clock", "synchronised")
		return
	}
	j.add("clock", Info, "the clock is not synchronised", "times in the log may not match those of other nodes, and certificates may seem invalid", "run chrony, systemd-timesyncd or another NTP client")
}

func (j *judge) daemon() {
	d := &j.Daemon
	const closed = "new flows of protected pods are dropped"
	switch {
	case d.Socket == "":
	case !d.Exists && j.Postern != "":
		j.add("daemon", Warn, "a postern runs here"+j.Postern+", and there is no socket "+d.Socket, "nothing is known of how it is", "give the socket or the settings that it has: --socket, --config")
	case !d.Exists && j.Survey.Ours:
		j.add("daemon", Warn, "postern does not run, and its table is there", closed+": an earlier process left the table (fail closed)", "start postern, or remove the table: nft delete table inet "+nft.TableName)
	case !d.Exists:
		j.add("daemon", Info, "postern does not run here", "", "")
	case d.Err != nil:
		j.add("daemon", Fail, "there is a socket "+d.Socket+", and it could not be asked: "+d.Err.Error(), "if postern died or hangs, "+closed, "look at its log; restart it; ask as root or as postern's user")
	case d.Enforcing && !j.Survey.Ours && j.SurveyErr == nil:
		j.add("daemon", Fail, "postern says that it enforces, and its table is not in this network namespace", "nothing is enforced here: somebody flushed the ruleset, or postern runs in another network namespace", "restart postern; keep others from \"nft flush ruleset\"")
	case !d.Enforcing:
		j.add("daemon", Warn, "postern runs and does not enforce yet", "what an earlier process left holds, and nothing if there was none", "postern status")
	case len(d.Degraded) > 0:
		j.add("daemon", Warn, "postern enforces, degraded: "+strings.Join(d.Degraded, "; "), "what is in force may be out of date", "postern status")
	default:
		j.ok("daemon", "postern enforces")
	}
}
