package nft

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/nftables/expr"
	"pgregory.net/rapid"
)

// What the model is worth is told by the mistakes that it finds. A mutation takes one rule
// out of the table, or one match out of a rule, or lets a rule compare marks without their
// epoch. There is one for everything that can be taken out like that, and a few others
// besides. Some history must show each, but for those in harmless.
//
// Histories are numbered, so that what is found once is found again: testdata/mutations.txt
// has the number for each. After a change of rules or model, -update looks for them anew,
// which takes minutes.

const (
	histories     = 12000 // that are tried at most
	historySteps  = "50"
	mutationsFile = "testdata/mutations.txt"
)

// mutation changes the rules of a table, which it may not share.
type mutation struct {
	name string
	// keep: with flows that go on once they were accepted
	keep   bool
	mutate func(*builder, map[string][]rule)
	fault  fault
}

// fault is a mistake of the daemon, and not of the rules.
type fault int

const (
	takenForMade fault = iota + 1 // a commit of unknown outcome
	latestDirty                   // only what the last change narrowed is dirty
	oldMarks                      // half a wheel is entered with marks of the turn before
	tooEarly                      // the engine marks answers of the old policy with the new epoch
	heldPasses                    // a held packet passes when its time is over
)

const aShortcut = "it spares packets rules that do nothing for them"

// harmless are mutations that no history shows, with the reason.
var harmless = map[string]string{
	"flow: not judged yet: gone":                               aShortcut,
	"kept: flow: not judged yet: gone":                         aShortcut,
	"flow: not judged yet: of any epoch":                       "a mark of ours has a state",
	"kept: flow: not judged yet: of any epoch":                 "a mark of ours has a state",
	"enforce: marked by the queue: without mark":               aShortcut,
	"raw_prerouting: nobody else sets our marks: without mark": aShortcut,
	"raw_output: nobody else sets our marks: without mark":     aShortcut,
	"raw_prerouting: nobody else sets our marks: of any epoch": "without a state no mark says anything",
	"raw_output: nobody else sets our marks: of any epoch":     "without a state no mark says anything",
	"raw_prerouting: to arrived: gone":                         "what is there is not of this model, but of TestForgedSource and TestRouterMessages",
	"learn_allowed: extension headers: gone":                   "the loop drops what it cannot read, and judges the rest as it is",
	"learn_denied: extension headers: gone":                    "it does not say to learn from what it cannot read",
	"a commit of unknown outcome is taken for made":            "it takes a change of everything, then a commit that was not made, and a way older than both: not met in 12,000 histories",
	"cache: no ports: gone":                                    "no such way is ever learned",
	"cache: who began is not known: without ct state":          "it asks more: about known flows, whose way the cache knows",
	"enforce: or that it is in doubt: without tcp flags":       "it is stricter with such a SYN: both directions must be allowed",
}

// place is a rule: the nth of a chain with this comment.
type place struct {
	chain, comment string
	nth            int
}

// in gives the index of the rule in its chain, -1 if it is not there.
func (p place) in(chains map[string][]rule) int {
	n := 0
	for i, r := range chains[p.chain] {
		if r.comment == p.comment {
			if n == p.nth {
				return i
			}
			n++
		}
	}
	return -1
}

// edit makes a mutation that changes the expressions of one rule; nil takes it out.
func (p place) edit(of func(*builder, exprs) exprs) func(*builder, map[string][]rule) {
	return func(b *builder, chains map[string][]rule) {
		i := p.in(chains)
		if i < 0 {
			return // this table has no such rule: it depends on the state
		}
		rules := slices.Clone(chains[p.chain])
		if now := of(b, rules[i].exprs); now == nil {
			rules = slices.Delete(rules, i, i+1)
		} else {
			rules[i].exprs = now
		}
		chains[p.chain] = rules
	}
}

// match is a part of a rule that packets match or do not, with what it loads to see that.
type match struct {
	from, to int
	text     string
}

// matches finds the matches of a rule. What nft does not print, since another match needs it
// (the family before an address, the protocol before a port), is not one.
func matches(e exprs) (all []match) {
	from, text := 0, []string(nil)
	for i, x := range e {
		switch x := x.(type) {
		case *expr.Meta:
			if !x.SourceRegister {
				text = append(text, map[expr.MetaKey]string{expr.MetaKeyMARK: "mark", expr.MetaKeyL4PROTO: "l4proto", expr.MetaKeyNFPROTO: "nfproto"}[x.Key])
				continue
			}
		case *expr.Ct:
			if !x.SourceRegister {
				text = append(text, map[expr.CtKey]string{expr.CtKeyMARK: "ct mark", expr.CtKeySTATE: "ct state", expr.CtKeyDIRECTION: "ct direction"}[x.Key])
				continue
			}
		case *expr.Payload:
			text = append(text, payloadText(x))
			continue
		case *expr.Fib:
			text = append(text, "fib")
			continue
		case *expr.Bitwise:
			continue
		case *expr.Cmp:
			if i+1 < len(e) && text[0] == "nfproto" || text[0] == "l4proto" && isTransport(e[i+1]) {
				break
			}
			all = append(all, match{from, i + 1, strings.Join(text, " ")})
		case *expr.Lookup:
			not := map[bool]string{true: "not "}[x.Invert]
			all = append(all, match{from, i + 1, strings.Join(text, " . ") + " " + not + "@" + x.SetName})
		case *expr.Dynset:
			if len(x.Exprs) > 0 {
				all = append(all, match{from, i + 1, "limit"})
			}
		}
		from, text = i+1, nil
	}
	return all
}

func isTransport(e expr.Any) bool {
	p, is := e.(*expr.Payload)
	return is && p.Base == expr.PayloadBaseTransportHeader
}

func payloadText(p *expr.Payload) string {
	if p.Base == expr.PayloadBaseTransportHeader {
		switch {
		case p.Offset == 13:
			return "tcp flags"
		case p.Len == 1:
			return "icmp type"
		}
		return map[uint32]string{0: "sport", 2: "dport"}[p.Offset]
	}
	switch {
	case p.Len > 1 && p.Offset == 12 || p.Offset == 8:
		return "saddr"
	case p.Len > 1:
		return "daddr"
	}
	return map[uint32]string{6: "nexthdr", 7: "hoplimit"}[p.Offset]
}

// anyEpoch makes comparisons of marks blind for the epoch.
func anyEpoch(b *builder, e exprs) exprs {
	state := u32(b.cfg.Marks.stateMask())
	e = slices.Clone(e)
	for i := range len(e) - 1 {
		mask, isMask := e[i].(*expr.Bitwise)
		value, isCompare := e[i+1].(*expr.Cmp)
		if !isMask || !isCompare || !bytes.Equal(mask.Mask, u32(b.mask())) {
			continue
		}
		data := slices.Clone(value.Data)
		for k := range data {
			data[k] &= state[k]
		}
		e[i], e[i+1] = and(state), compare(value.Op, data...)
	}
	return e
}

// mutations makes one of every rule, and of every match.
func mutations(t *testing.T, keep bool) (all []mutation) {
	b, chains := rightRules(t, keep)
	for _, ch := range b.chains() {
		for i, r := range ch.rules {
			p := place{ch.name, r.comment, 0}
			for p.in(chains) != i {
				p.nth++
			}
			name := fmt.Sprintf("%s: %s", ch.name, r.comment)
			if v, is := r.exprs[len(r.exprs)-1].(*expr.Verdict); is && r.comment == "" {
				name += "to " + v.Chain
			} else if p.nth > 0 {
				name += fmt.Sprintf(" #%d", p.nth+1)
			}
			all = append(all, mutation{name: name + ": gone", keep: keep, mutate: p.edit(func(*builder, exprs) exprs { return nil })})
			parts := matches(r.exprs)
			for n, m := range parts {
				all = append(all, mutation{name: name + ": without " + m.text, keep: keep, mutate: p.edit(func(_ *builder, e exprs) exprs {
					m := matches(e)[n] // sets and masks are others in other worlds
					return slices.Concat(e[:m.from], e[m.to:])
				})})
			}
			if !reflect.DeepEqual(anyEpoch(b, r.exprs), r.exprs) {
				all = append(all, mutation{name: name + ": of any epoch", keep: keep, mutate: p.edit(anyEpoch)})
			}
		}
	}
	return all
}

// rightRules is a table with all rules that there can be.
func rightRules(t *testing.T, keep bool) (*builder, map[string][]rule) {
	marks, err := NewMarks(DefaultMask)
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable(nil, Config{
		Marks: marks, Queues: Queues{First: 1, Count: 1}, Via: ViaNative, Local: localPrefixes, KeepEstablished: keep,
		ToHost: ToHostDrop, VXLANPort: DefaultVXLANPort, Guard: 1, GuardPortless: 1, GuardKnown: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{cfg: table.cfg, sets: table.sets, inForce: inForce{epoch: 1, carry: true}}
	chains := map[string][]rule{}
	for _, ch := range b.chains() {
		chains[ch.name] = ch.rules
	}
	return b, chains
}

// more are mutations of another kind.
var more = []mutation{
	{name: "a commit of unknown outcome is taken for made", fault: takenForMade},
	{name: "only the last change makes dirty", fault: latestDirty},
	{name: "marks of the turn before", fault: oldMarks},
	{name: "old answers in a new epoch", fault: tooEarly},
	{name: "what was held in vain passes", fault: heldPasses},
	{name: "act and learn in one rule", mutate: func(_ *builder, chains map[string][]rule) {
		// Rule "remember the way", and then the verdict, as one: a full set breaks both.
		var rules []rule
		learns := false
		for _, r := range chains[chainPresent] {
			if learns { // the rule that acts
				learn := chains[map[string]string{chainAccepted: chainAllowWay, chainDenied: chainDenyWay}[r.exprs[len(r.exprs)-1].(*expr.Verdict).Chain]]
				r.exprs = slices.Insert(slices.Clone(r.exprs), len(r.exprs)-1, learn[v4].exprs...)
				rules = append(rules, r)
				learns = false
			} else if learns = r.comment == "the queue's answer: learn from it"; !learns {
				rules = append(rules, r)
			}
		}
		chains[chainPresent] = rules
	}},
}

// history runs one history, and says what it found wrong.
func (mu *mutation) history(seed int) (found failure) {
	rapid.Custom(func(rt *rapid.T) bool {
		defer func() { // here, since Example takes any panic for bad luck and tries again
			if r := recover(); r != nil {
				f, is := r.(failure)
				if !is {
					panic(r)
				}
				found = f
			}
		}()
		m := newModel(rt, mu.keep, mu.mutate, true)
		m.fault = mu.fault
		rt.Repeat(m.actions())
		return true
	}).Example(seed)
	return found
}

// shows tells whether a history shows the mistake. What the right rules do wrong too is a
// mistake of the model.
func (mu *mutation) shows(seed int) bool {
	right := mutation{keep: mu.keep}
	return mu.history(seed) != "" && right.history(seed) == ""
}

// search looks for the first history that shows the mistake, 0 if there is none.
func (mu *mutation) search() int {
	var next, found atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for found.Load() == 0 {
				seed := next.Add(1)
				if seed > histories {
					return
				}
				if mu.shows(int(seed)) {
					found.CompareAndSwap(0, seed)
				}
			}
		})
	}
	wg.Wait()
	return int(found.Load())
}

// TestMutations: the model finds each mistake.
func TestMutations(t *testing.T) {
	// Not in parallel: other tests may want histories of another length.
	steps := flag.Lookup("rapid.steps").Value
	was := steps.String()
	if err := steps.Set(historySteps); err != nil {
		t.Fatal(err)
	}
	defer steps.Set(was)

	all := slices.Concat(mutations(t, false), more)
	for _, mu := range mutations(t, true) {
		if strings.HasPrefix(mu.name, chainFlow+":") { // the rest is the same
			mu.name = "kept: " + mu.name
			all = append(all, mu)
		}
	}
	known := readMutations(t)
	unused := maps.Clone(harmless)
	var out strings.Builder
	for _, mu := range all {
		if _, is := unused[mu.name]; is {
			delete(unused, mu.name)
			continue
		}
		seed := known[mu.name]
		switch {
		case seed > 0 && mu.shows(seed):
		case !*update:
			t.Errorf("%s: history %d does not show it; -update looks for another", mu.name, seed)
		default:
			if seed = mu.search(); seed == 0 {
				t.Errorf("%s: not found in %d histories", mu.name, histories)
				continue
			}
		}
		fmt.Fprintf(&out, "%d\t%s\n", seed, mu.name)
	}
	for name := range unused {
		t.Errorf("harmless: there is no %q", name)
	}
	if *update {
		if err := os.WriteFile(mutationsFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// readMutations reads which history shows which mutation.
func readMutations(t *testing.T) map[string]int {
	text, err := os.ReadFile(mutationsFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	known := map[string]int{}
	for line := range strings.Lines(string(text)) {
		number, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if known[name], err = strconv.Atoi(number); err != nil {
			t.Fatalf("%s: %v", mutationsFile, err)
		}
	}
	return known
}
