package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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
	// KeepEstablished lets accepted flows go on until they end, whatever policy
	// says later.
	KeepEstablished bool
	// Local are the prefixes from which pods of this host have their addresses. A packet
	// with such an address at one end, and no pod that has it, goes to the queue.
	Local []netip.Prefix
	// CacheSize is how many ways each of the caches holds; 0 for DefaultCacheSize.
	CacheSize uint32
	// Bypass lets packets pass that would go to the queue while nobody has bound it.
	// CountUnanswered counts packets that pass the queue without an answer: for Bypass, or
	// because whoever bound it has asked the kernel to let pass what it has no room for.
	Bypass, CountUnanswered bool
	// What one source may ask the queue a second, at once and in the long run: about
	// new flows of protocols with ports, new ones of others, and packets of flows that
	// conntrack knows. What is over is dropped. 0 is without limit.
	Guard, GuardPortless, GuardKnown uint32
}

// DefaultCacheSize takes up to some 10 MB of kernel memory for each family, twice.
const DefaultCacheSize = 65536

// Defaults of the guard. A thread decides some 12,000 new flows a second (two cores,
// Linux 6.18, 2026-11), so that it takes six busy sources to fill it. Repeated ways are
// answered by the cache and count for nothing.
const (
	DefaultGuard         = 2000
	DefaultGuardPortless = 200
	DefaultGuardKnown    = 4000
)

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

// State is what the table shall enforce. Addresses are of both families, each once.
type State struct {
	// Ingress and Egress are of the pods that some policy isolates in that direction,
	// and Pods of all pods of this host. Traffic that has no address of Ingress or Egress
	// at the end in question is never delayed.
	Ingress, Egress, Pods []netip.Addr
	// Epoch is the number of the policy that the queue answers by. Each State that
	// changes a verdict has another than that before it, and none that flows may still
	// carry from the turn before.
	Epoch uint32
	// Past are epochs whose accepted flows are still accepted, unless one of their ends
	// is Dirty: the epoch before, if any, comes first.
	Past  []uint32
	Dirty []netip.Addr
	// ForgetWays: ways that the epoch before allowed do not count any more, not even those
	// whose ends are not Dirty.
	ForgetWays bool
}

// Table is postern's table in the kernel.
type Table struct {
	conn   *Conn
	cfg    Config
	table  *nftables.Table
	sets   sets
	holds  map[*nftables.Set]map[string]bool // keys that the kernel's sets hold
	state  inForce                           // valid if inside
	inside bool                              // rules are in the kernel, by the state
	// suspect: what is there may be anything.
	suspect bool
	// unhooked: the kernel calls none of its chains. For trying.
	unhooked bool
}

// Conn is a connection to the kernel's nftables. It is for one goroutine at a time.
type Conn struct {
	*nftables.Conn
	socket *netlink.Conn
	port   uint32 // netlink port id, by which the kernel tells others who made a change
}

// Dial opens a connection in the caller's network namespace, with buffers for large
// transactions. Its CloseLasting ends it.
func Dial() (*Conn, error) {
	// A change of 100,000 addresses is one transaction of some 5 MiB, and each
	// of its messages is acknowledged.
	return dial(16<<20, 4<<20)
}

func dial(writeBuffer, readBuffer int) (*Conn, error) {
	conn := &Conn{}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(nl *netlink.Conn) error {
		conn.socket, conn.port = nl, nl.PID()
		return errors.Join(nl.SetWriteBuffer(writeBuffer), nl.SetReadBuffer(readBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	conn.Conn = c
	return conn, nil
}

// Flush makes a transaction of what is waiting. After an error it takes what is left of the
// kernel's answer out of the socket: the next transaction must not take it for its own.
func (c *Conn) Flush() error {
	err := c.Conn.Flush()
	if err == nil {
		return nil
	}
	end := time.Now().Add(restOfAnswer)
	if derr := c.socket.SetReadDeadline(end); derr != nil {
		return errors.Join(err, derr)
	}
	for time.Now().Before(end) {
		_, _ = c.socket.Receive() // what is refused comes as an error
	}
	return errors.Join(err, c.socket.SetReadDeadline(time.Time{}))
}

// restOfAnswer bounds the wait for answers that nobody has read; all are there by then.
const restOfAnswer = 50 * time.Millisecond

// NewTable returns a handle on the table; the kernel is not touched. The Table
// uses c alone and the caller closes it.
func NewTable(c *Conn, cfg Config) (*Table, error) {
	if cfg.Queues.Count == 0 || int(cfg.Queues.First)+int(cfg.Queues.Count) > 1<<16 {
		return nil, fmt.Errorf("queues %d+%d: want 1 or more, and numbers up to 65535", cfg.Queues.First, cfg.Queues.Count)
	}
	if cfg.Via == ViaNone {
		return nil, ErrNoQueue
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = DefaultCacheSize
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: TableName}
	return &Table{conn: c, cfg: cfg, table: t, sets: newSets(t, cfg.CacheSize), suspect: true}, nil
}

// Apply makes the kernel enforce a state in the place of that before. The first call
// also puts the table in, or adopts and renews what an earlier process left, without a
// moment in which a protected address is not covered. Each call is one transaction. An
// error leaves open which of the two states is in force.
func (t *Table) Apply(s State) error {
	if s.Epoch >= t.cfg.Marks.Epochs() {
		return fmt.Errorf("epoch %d: there are %d", s.Epoch, t.cfg.Marks.Epochs())
	}
	err := t.apply(s, false)
	if err != nil && t.suspect {
		// What somebody made of the table stands in the way of ours. To delete it drops
		// the packets that wait, which is better than to enforce nothing.
		err = t.apply(s, true)
	}
	if err == nil {
		t.suspect = false
	}
	return err
}

// Distrust says that somebody else has changed the table, or removed it: the next call of
// Apply puts all of it in.
func (t *Table) Distrust() { t.inside, t.suspect = false, true }

// apply makes one transaction; with anew it begins with the deletion of the table.
func (t *Table) apply(s State, anew bool) error {
	first := !t.inside
	switch {
	case anew:
		t.holds = map[*nftables.Set]map[string]bool{}
		t.delete()
		t.create()
	case first:
		if err := t.adopt(); err != nil {
			return err
		}
		t.create()
	}
	now, fresh := t.next(s)
	if first || now != t.state {
		t.renew(now, fresh)
	}
	want := t.elements(s)
	t.inside = false // until the kernel has said so; look again at what is there before the next try
	for _, set := range t.sets.kept() {
		add, del := difference(t.holds[set], want[set])
		for c := range slices.Chunk(del, chunk) {
			if err := t.conn.SetDeleteElements(set, elements(c)); err != nil {
				return fmt.Errorf("set %s: delete: %w", set.Name, err)
			}
		}
		for c := range slices.Chunk(add, chunk) {
			if err := t.conn.SetAddElements(set, elements(c)); err != nil {
				return fmt.Errorf("set %s: add: %w", set.Name, err)
			}
		}
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("table %s: %w", TableName, err)
	}
	t.inside, t.state = true, now
	for _, set := range t.sets.kept() {
		t.holds[set] = make(map[string]bool, len(want[set]))
		for _, k := range want[set] {
			t.holds[set][k] = true
		}
	}
	return nil
}

// next tells how the rules shall be in a state, and whether it begins with empty
// caches.
func (t *Table) next(s State) (now inForce, fresh bool) {
	now = inForce{epoch: s.Epoch, carry: len(s.Past) > 0 && !s.ForgetWays}
	return now, !t.inside || now.epoch != t.state.epoch
}

// elements gives the keys that the sets shall hold.
func (t *Table) elements(s State) map[*nftables.Set][]string {
	want := map[*nftables.Set][]string{}
	for p, addrs := range map[*pair][]netip.Addr{&t.sets.ingress: s.Ingress, &t.sets.egress: s.Egress, &t.sets.pods: s.Pods, &t.sets.dirty: s.Dirty} {
		for v, of := range byFamily(addrs) {
			for _, a := range of {
				want[p[v]] = append(want[p[v]], string(a.AsSlice()))
			}
		}
	}
	mark := func(epoch uint32) string { return string(u32(t.cfg.Marks.Flow(epoch))) }
	want[t.sets.current] = []string{mark(s.Epoch)}
	for _, e := range s.Past {
		want[t.sets.past] = append(want[t.sets.past], mark(e))
	}
	return want
}

// Epoch reads the epoch that the table in the kernel is in; ok is false where there is
// no table, or none that says.
func (t *Table) Epoch() (epoch uint32, ok bool, err error) {
	if ok, err := t.exists(); err != nil || !ok {
		return 0, false, err
	}
	inKernel, err := t.conn.GetSets(t.table)
	if err != nil {
		return 0, false, fmt.Errorf("table %s: list sets: %w", TableName, err)
	}
	if !slices.ContainsFunc(inKernel, func(k *nftables.Set) bool { return k.Name == t.sets.current.Name }) {
		return 0, true, nil // of a version that knew no epochs: its marks are those of the first
	}
	els, err := t.conn.GetSetElements(t.sets.current)
	if err != nil {
		return 0, false, fmt.Errorf("set %s: list: %w", t.sets.current.Name, err)
	}
	if len(els) != 1 {
		return 0, false, nil // somebody has damaged it
	}
	mark := binaryutil.NativeEndian.Uint32(els[0].Key)
	epoch, accepted, ok := t.cfg.Marks.Judged(mark)
	if !ok || !accepted || mark&^t.cfg.Marks.Mask() != 0 {
		return 0, false, fmt.Errorf("the table in the kernel marks flows by %#x, which is not of mask %#x: an earlier process was given another; remove its table first (nft delete table inet %s)", mark, t.cfg.Marks.Mask(), TableName)
	}
	return epoch, true, nil
}

// adopt reads what the sets of an existing table hold.
func (t *Table) adopt() error {
	t.holds = map[*nftables.Set]map[string]bool{}
	there, err := t.exists()
	if err != nil || !there {
		return err
	}
	inKernel, err := t.conn.GetSets(t.table)
	if err != nil {
		return fmt.Errorf("table %s: list sets: %w", TableName, err)
	}
	for _, s := range t.sets.kept() {
		if !slices.ContainsFunc(inKernel, func(k *nftables.Set) bool { return k.Name == s.Name }) {
			continue
		}
		els, err := t.conn.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("set %s: list: %w", s.Name, err)
		}
		t.holds[s] = make(map[string]bool, len(els))
		for _, e := range els {
			t.holds[s][string(e.Key)] = true
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

// create queues the messages that make the table, its chains, counters and sets as far
// as they are not there.
func (t *Table) create() {
	c := t.conn
	c.AddTable(t.table)
	for _, name := range Counters {
		c.AddObj(&nftables.NamedObj{Table: t.table, Name: string(name), Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	// AddSet's errors are of arguments, and these are constant.
	for _, s := range slices.Concat(t.sets.kept(), t.sets.others(), t.sets.caches(0), t.sets.caches(1)) {
		_ = c.AddSet(s, nil)
	}
	c.FlushSet(t.sets.ported)
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
		_ = c.SetAddElements(t.sets.ported, []nftables.SetElement{{Key: []byte{p}}})
	}
	for v, s := range t.sets.local {
		c.FlushSet(s)
		if els := intervals(t.cfg.Local, v); len(els) > 0 {
			_ = c.SetAddElements(s, els)
		}
	}
	policy := nftables.ChainPolicyAccept
	for _, ch := range t.builder(inForce{}).chains() {
		k := &nftables.Chain{Table: t.table, Name: ch.name}
		if ch.hook != nil && !t.unhooked {
			k.Hooknum, k.Priority, k.Type, k.Policy = ch.hook, ch.priority, nftables.ChainTypeFilter, &policy
		}
		c.AddChain(k)
	}
}

// renew queues the messages that exchange the rules that change, and gives the epoch
// empty caches if it is a new one.
func (t *Table) renew(now inForce, fresh bool) {
	c := t.conn
	b := t.builder(now)
	changed := b.ofEpoch()
	if !t.inside {
		changed = slices.DeleteFunc(b.chains(), func(ch chain) bool { return ch.ofOthers })
	}
	for _, ch := range changed { // a set cannot be deleted while a rule looks into it
		c.FlushChain(&nftables.Chain{Table: t.table, Name: ch.name})
	}
	if fresh {
		for _, s := range t.sets.caches(now.epoch) {
			c.DelSet(s)
			_ = c.AddSet(s, nil)
		}
	}
	for _, ch := range changed {
		for _, r := range ch.rules {
			rule := &nftables.Rule{Table: t.table, Chain: &nftables.Chain{Table: t.table, Name: ch.name}, Exprs: r.exprs}
			if r.comment != "" {
				rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
			}
			c.AddRule(rule)
		}
	}
}

func (t *Table) builder(now inForce) *builder {
	return &builder{cfg: t.cfg, sets: t.sets, inForce: now}
}

// Count reads the table's counters, in packets since the table was made; it is
// empty where there is no table.
func (t *Table) Count() (map[Counter]uint64, error) { return ReadCounters(t.conn) }

// ReadCounters reads the counters of the table that is there, those of Sources too.
// With a connection of its own it may be called beside a Table that is at work.
func ReadCounters(c *Conn) (map[Counter]uint64, error) {
	objs, err := c.GetNamedObjects(&nftables.Table{Family: nftables.TableFamilyINet, Name: TableName})
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
	return Remove(t.conn)
}

// Remove is Table.Remove for who has no Table: the table is that of a process that is
// gone.
func Remove(c *Conn) error {
	remove(c, &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("table %s: remove: %w", TableName, err)
	}
	return nil
}

// Exists tells whether a postern, of which nobody need be left, has its table in the kernel.
func Exists(c *Conn) (bool, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == TableName }), nil
}

// delete queues the messages that delete the table, if there is one.
func (t *Table) delete() { remove(t.conn, t.table) }

func remove(c *Conn, table *nftables.Table) {
	c.AddTable(table) // so that the deletion finds one
	c.DelTable(table)
}

// difference tells what to add to and delete from a set to make it want, each in
// order.
func difference(has map[string]bool, want []string) (add, del []string) {
	wanted := make(map[string]bool, len(want))
	for _, k := range want {
		if !has[k] && !wanted[k] {
			add = append(add, k)
		}
		wanted[k] = true
	}
	for k := range has {
		if !wanted[k] {
			del = append(del, k)
		}
	}
	slices.Sort(add)
	slices.Sort(del)
	return add, del
}

func elements(keys []string) []nftables.SetElement {
	el := make([]nftables.SetElement, len(keys))
	for i, k := range keys {
		el[i].Key = []byte(k)
	}
	return el
}
