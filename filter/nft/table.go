package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
)

// TableName is the name of postern's table, in family inet.
const TableName = "postern"

// chunk is how many addresses go into one message. A netlink attribute holds at
// most 64 KiB, and an element takes up to 40 bytes.
const chunk = 1000

// Config says what the rules shall be.
type Config struct {
	Marks  Marks
	Queues Queues
	// Via is the kernel facility to use; Probe finds it.
	Via QueueVia
	// ToHost is what becomes of a pod's new flows to its own host after egress
	// policy allowed them: Calico's defaultEndpointToHostAction.
	ToHost ToHost
	// Pods may not send VXLAN to VXLANPort (0: no rule about VXLAN) nor IP in IP, unless
	// AllowTunnels is set.
	VXLANPort    uint16
	AllowTunnels bool
	// JudgeInvalid sends packets that conntrack cannot place to the queue, where
	// they are dropped otherwise.
	JudgeInvalid bool
}

// ToHost is an action for flows of pods to their own host.
type ToHost uint8

const (
	// ToHostAccept leaves it to egress policy, and to other tables.
	ToHostAccept ToHost = iota
	ToHostDrop
	// ToHostReject answers with ICMP port unreachable.
	ToHostReject
)

// DefaultVXLANPort is the port that Calico and most others use (IANA).
const DefaultVXLANPort = 4789

// Protected are the addresses of the pods that some policy isolates, by
// direction, and of all pods of this host; both families, each address once.
// Traffic that has no address of Ingress or Egress at the end in question is never
// delayed.
type Protected struct{ Ingress, Egress, Pods []netip.Addr }

// Table is postern's table in the kernel.
type Table struct {
	conn   *Conn
	cfg    Config
	table  *nftables.Table
	sets   sets
	holds  map[*nftables.Set]map[netip.Addr]bool // what the kernel's sets hold
	inside bool                                  // rules are in the kernel
}

// Conn is a connection to the kernel's nftables. It is for one goroutine at a time.
type Conn = nftables.Conn

// Dial opens a connection in the caller's network namespace, with buffers for large
// transactions. Its CloseLasting ends it.
func Dial() (*Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(nl *netlink.Conn) error {
		// A change of 100,000 addresses is one transaction of some 5 MiB, and each
		// of its messages is acknowledged.
		return errors.Join(nl.SetWriteBuffer(16<<20), nl.SetReadBuffer(4<<20))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

// NewTable returns a handle on the table; the kernel is not touched. The Table
// uses c alone and the caller closes it.
func NewTable(c *Conn, cfg Config) (*Table, error) {
	if cfg.Queues.Count == 0 || int(cfg.Queues.First)+int(cfg.Queues.Count) > 1<<16 {
		return nil, fmt.Errorf("queues %d+%d: want 1 or more, and numbers up to 65535", cfg.Queues.First, cfg.Queues.Count)
	}
	if cfg.Via == ViaNone {
		return nil, ErrNoQueue
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName}
	return &Table{conn: c, cfg: cfg, table: t, sets: newSets(t)}, nil
}

// Protect makes the kernel protect exactly these addresses. The first call also
// puts the rules in, or adopts and renews those that an earlier process left,
// without a moment in which a protected address is not covered. Each call is one
// transaction; on an error the kernel is as it was before.
func (t *Table) Protect(p Protected) error {
	if !t.inside {
		if err := t.adopt(); err != nil {
			return err
		}
		t.install()
	}
	want := map[*nftables.Set][]netip.Addr{}
	want[t.sets.ingress4], want[t.sets.ingress6] = byFamily(p.Ingress)
	want[t.sets.egress4], want[t.sets.egress6] = byFamily(p.Egress)
	want[t.sets.pods4], want[t.sets.pods6] = byFamily(p.Pods)
	for _, s := range t.sets.all() {
		add, del := difference(t.holds[s], want[s])
		for c := range slices.Chunk(del, chunk) {
			if err := t.conn.SetDeleteElements(s, elements(c)); err != nil {
				return fmt.Errorf("set %s: delete: %w", s.Name, err)
			}
		}
		for c := range slices.Chunk(add, chunk) {
			if err := t.conn.SetAddElements(s, elements(c)); err != nil {
				return fmt.Errorf("set %s: add: %w", s.Name, err)
			}
		}
	}
	if err := t.conn.Flush(); err != nil {
		t.inside = false // look again at what is there before the next try
		return fmt.Errorf("table %s: %w", TableName, err)
	}
	t.inside = true
	for s, addrs := range want {
		t.holds[s] = make(map[netip.Addr]bool, len(addrs))
		for _, a := range addrs {
			t.holds[s][a] = true
		}
	}
	return nil
}

// adopt reads what the sets of an existing table hold.
func (t *Table) adopt() error {
	t.holds = map[*nftables.Set]map[netip.Addr]bool{}
	there, err := t.exists()
	if err != nil || !there {
		return err
	}
	inKernel, err := t.conn.GetSets(t.table)
	if err != nil {
		return fmt.Errorf("table %s: list sets: %w", TableName, err)
	}
	for _, s := range t.sets.all() {
		if !slices.ContainsFunc(inKernel, func(k *nftables.Set) bool { return k.Name == s.Name }) {
			continue
		}
		els, err := t.conn.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("set %s: list: %w", s.Name, err)
		}
		t.holds[s] = make(map[netip.Addr]bool, len(els))
		for _, e := range els {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				t.holds[s][a] = true
			}
		}
	}
	return nil
}

func (t *Table) exists() (bool, error) {
	tables, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(k *nftables.Table) bool { return k.Name == TableName }), nil
}

// install queues the messages that make the table, or renew its rules where it
// exists: chains and sets stay, rules are replaced.
func (t *Table) install() {
	c := t.conn
	c.AddTable(t.table)
	for _, name := range Counters {
		c.AddObj(&nftables.NamedObj{Table: t.table, Name: string(name), Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	for _, s := range t.sets.all() {
		// The error is one of arguments, and these are constant.
		_ = c.AddSet(s, nil)
	}
	policy := nftables.ChainPolicyAccept
	for _, ch := range chains(t.cfg, t.sets) {
		k := &nftables.Chain{Table: t.table, Name: ch.name}
		if ch.hook != nil {
			k.Hooknum, k.Priority, k.Type, k.Policy = ch.hook, ch.priority, nftables.ChainTypeFilter, &policy
		}
		c.AddChain(k)
		c.FlushChain(k)
		for _, r := range ch.rules {
			rule := &nftables.Rule{Table: t.table, Chain: k, Exprs: r.exprs}
			if r.comment != "" {
				rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
			}
			c.AddRule(rule)
		}
	}
}

// Count reads the table's counters, in packets since the table was made; it is
// empty where there is no table.
func (t *Table) Count() (map[Counter]uint64, error) {
	objs, err := t.conn.GetNamedObjects(t.table)
	if err != nil {
		return nil, fmt.Errorf("table %s: counters: %w", TableName, err)
	}
	n := map[Counter]uint64{}
	for _, o := range objs {
		if named, ok := o.(*nftables.NamedObj); ok {
			if c, ok := named.Obj.(*expr.Counter); ok {
				n[Counter(named.Name)] = c.Packets
			}
		}
	}
	return n, nil
}

// Remove deletes the table and all that is in it. Nothing is enforced from then
// on, and packets that wait in any queue of the network namespace, whoever's it
// is, are dropped by the kernel. Removing a table that is not there is no error.
func (t *Table) Remove() error {
	t.inside = false
	t.conn.AddTable(t.table) // so that the deletion finds one
	t.conn.DelTable(t.table)
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("table %s: remove: %w", TableName, err)
	}
	return nil
}

func byFamily(addrs []netip.Addr) (v4, v6 []netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6
}

// difference tells what to add to and delete from a set to make it want, each in
// address order.
func difference(has map[netip.Addr]bool, want []netip.Addr) (add, del []netip.Addr) {
	wanted := make(map[netip.Addr]bool, len(want))
	for _, a := range want {
		if !has[a] && !wanted[a] {
			add = append(add, a)
		}
		wanted[a] = true
	}
	for a := range has {
		if !wanted[a] {
			del = append(del, a)
		}
	}
	slices.SortFunc(add, netip.Addr.Compare)
	slices.SortFunc(del, netip.Addr.Compare)
	return add, del
}
