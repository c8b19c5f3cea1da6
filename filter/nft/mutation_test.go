package nft

import (
	"flag"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/nftables/expr"
	"pgregory.net/rapid"
)

// What the model is worth is told by the mistakes that it finds. Each mutation takes one
// protective expression, or one rule, out of the table, and some history must show it
// within a bounded number of tries.

var tryMutations = flag.Bool("mutations", false, "try whether the model finds every mutation of the rules, about a minute; otherwise only whether they still change something")

// few is how many histories are tried at most, and rare how many for mistakes that show in
// few worlds. Histories are numbered, so that what is found once is found again.
const (
	few  = 1200
	rare = 4000
)

// mutation changes the rules of a table, which it may not share.
type mutation struct {
	name string
	// within so many histories it is found
	within int
	// keep: with flows that go on once they were accepted
	keep   bool
	mutate func(*builder, map[string][]rule)
}

// without takes expressions out of every rule of a chain with this comment.
func without(chain, comment string, part func(*builder) exprs) func(*builder, map[string][]rule) {
	return func(b *builder, chains map[string][]rule) {
		rules, part := slices.Clone(chains[chain]), part(b)
		for i, r := range rules {
			if r.comment != comment {
				continue
			}
			for at := range len(r.exprs) - len(part) + 1 {
				if reflect.DeepEqual(r.exprs[at:at+len(part)], part) {
					rules[i].exprs = slices.Concat(r.exprs[:at], r.exprs[at+len(part):])
					break
				}
			}
		}
		chains[chain] = rules
	}
}

// less takes all rules with this comment out of chains.
func less(comment string, from ...string) func(*builder, map[string][]rule) {
	return func(_ *builder, chains map[string][]rule) {
		for _, chain := range from {
			chains[chain] = slices.DeleteFunc(slices.Clone(chains[chain]), func(r rule) bool { return r.comment == comment })
		}
	}
}

// anyEpoch makes comparisons of marks blind for the epoch, in the rules of a chain with
// this comment.
func anyEpoch(chain, comment string) func(*builder, map[string][]rule) {
	return func(b *builder, chains map[string][]rule) {
		state := u32(b.cfg.Marks.stateMask())
		rules := slices.Clone(chains[chain])
		for i, r := range rules {
			if r.comment != comment {
				continue
			}
			rules[i].exprs = slices.Clone(r.exprs)
			for j, e := range r.exprs[:len(r.exprs)-1] {
				mask, isMask := e.(*expr.Bitwise)
				value, isCompare := r.exprs[j+1].(*expr.Cmp)
				if !isMask || !isCompare || mask.Len != 4 {
					continue
				}
				data := slices.Clone(value.Data)
				for k := range data {
					data[k] &= state[k]
				}
				rules[i].exprs[j], rules[i].exprs[j+1] = and(state), compare(value.Op, data...)
			}
		}
		chains[chain] = rules
	}
}

// sides takes out the rules of a chain that look into a pair of sets at one end of the
// packet.
func sides(chain string, of func(*builder) pair, source bool) func(*builder, map[string][]rule) {
	return func(b *builder, chains map[string][]rule) {
		chains[chain] = slices.DeleteFunc(slices.Clone(chains[chain]), func(r rule) bool {
			for _, set := range of(b) {
				part := addrIn(set, source)
				for at := range len(r.exprs) - len(part) + 1 {
					if reflect.DeepEqual(r.exprs[at:at+len(part)], part) {
						return true
					}
				}
			}
			return false
		})
	}
}

func always(e func() exprs) func(*builder) exprs { return func(*builder) exprs { return e() } }

var (
	dirty   = func(b *builder) pair { return b.dirty }
	ingress = func(b *builder) pair { return b.ingress }
	egress  = func(b *builder) pair { return b.egress }
)

var mutations = []mutation{
	{"a SYN rides on an accepted flow", few, false, without(chainFlow, "accepted TCP flows, but not a SYN", always(notOpening))},
	{"a flow accepted in any epoch", few, false, anyEpoch(chainFlow, "accepted TCP flows, but not a SYN")},
	{"the same without TCP", few, false, anyEpoch(chainFlow, "accepted flows")},
	{"an error keeps another flow", few, false, less("about another flow", chainKeep)},
	{"a dirty source is kept", rare, false, sides(chainKeep, dirty, true)},
	{"a dirty destination is kept", rare, false, sides(chainKeep, dirty, false)},
	{"a reply teaches that a way is allowed", rare, false, less("against its flow's direction", chainAllowWay)},
	{"extension headers pass by the cache", rare, false, less("extension headers", chainCache)},
	{"an answer of any epoch", few, false, anyEpoch(chainVerdicts, "the queue's answer")},
	{"an answer of any epoch teaches", few, false, anyEpoch(chainVerdicts, "the queue's answer: learn from it")},
	{"errors are judged", few, false, less("an error about a flow that is not accepted", chainEnforce)},
	{"the queue does not hear of replies", few, false, less("tell the queue who began the flow", chainEnforce)},
	{"the queue does not hear what began unseen", few, false, less("or that nobody knows", chainEnforce)},
	{"act and learn in one rule", few, false, func(_ *builder, chains map[string][]rule) {
		// Rule "remember the way", and then the verdict, as one: a full set breaks both.
		rules := slices.Clone(chains[chainVerdicts])
		for i, r := range rules {
			if r.comment == "the queue's answer: learn from it" {
				learn := chains[r.exprs[len(r.exprs)-1].(*expr.Verdict).Chain]
				act := rules[i+1].exprs[len(rules[i+1].exprs)-1]
				rules[i].exprs = slices.Concat(r.exprs[:len(r.exprs)-1], learn[len(learn)-2].exprs, exprs{act})
			}
		}
		chains[chainVerdicts] = slices.DeleteFunc(rules, func(r rule) bool { return r.comment == "the queue's answer" && len(r.exprs) == 4 })
	}},
	{"packets bring marks along", few, false, less("nobody else sets our marks", "raw_prerouting")},
	{"from protected pods unasked", few, false, sides("pod_postrouting", egress, true)},
	{"to protected pods unasked", few, false, less("to a protected pod", "pod_postrouting")},
	{"from protected pods to this host unasked", few, false, sides("host_input", egress, true)},
	{"answers unasked", few, false, less("goes against its flow's direction", "pod_postrouting")},
	{"answers to this host are as others", few, false, less("answers to this host", "host_input")},
	{"answers of protected pods' flows unasked", few, false, less("of a protected pod's flow", chainAnswers)},
	{"answers of flows to protected pods unasked", few, false, less("of a flow to a protected pod", chainAnswers)},
	{"answers of unknown pods unasked", few, false, less("a pod that is not known yet", chainAnswers)},
	{"unknown pods unasked", few, false, less("a pod that is not known yet", "pod_postrouting")},
	{"unknown pods to this host unasked", few, false, less("a pod that is not known yet", "host_input")},
	{"the wrong way round is as others", few, false, less("conntrack may have it the wrong way round", "pod_postrouting")},
	{"the wrong way round from protected pods", few, false, sides(chainTaken, egress, false)},
	{"the wrong way round to protected pods", few, false, sides(chainTaken, ingress, true)},
	{"no guard", few, false, less("new", chainGuard)},
	{"no guard without ports", few, false, less("new, without ports", chainGuard)},
	{"no guard of known flows", few, false, less("of known flows", chainGuard)},
	{"known flows cost new ones their share", few, false, func(_ *builder, chains map[string][]rule) {
		chains[chainGuard] = slices.DeleteFunc(slices.Clone(chains[chainGuard]), func(r rule) bool {
			last, is := r.exprs[len(r.exprs)-1].(*expr.Verdict)
			return is && last.Kind == expr.VerdictReturn
		})
	}},
	{"no guard, where flows are kept", few, true, less("new", chainGuard)},
	{"kept: a SYN rides on an accepted flow", few, true, without(chainFlow, "accepted TCP flows, but not a SYN", always(notOpening))},
	{"kept: unknown pods unasked", few, true, less("a pod that is not known yet", "pod_postrouting")},
	{"kept: an answer of any epoch", few, true, anyEpoch(chainVerdicts, "the queue's answer")},
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
		rt.Repeat(m.actions())
		return true
	}).Example(seed)
	return found
}

// changesSomething makes sure that the mutation still finds what it takes out.
func (mu *mutation) changesSomething(t *testing.T) {
	marks, err := NewMarks(DefaultMask)
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable(nil, Config{
		Marks: marks, Queues: Queues{First: 1, Count: 1}, Via: ViaNative, Local: localPrefixes, KeepEstablished: mu.keep,
		Guard: 1, GuardPortless: 1, GuardKnown: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{cfg: table.cfg, sets: table.sets, inForce: inForce{epoch: 1, carry: true}}
	was, is := map[string][]rule{}, map[string][]rule{}
	for _, ch := range b.chains() {
		was[ch.name], is[ch.name] = ch.rules, ch.rules
	}
	if mu.mutate(b, is); reflect.DeepEqual(was, is) {
		t.Error("changes nothing: the rules are not what they were when it was written")
	}
}

// TestMutations: the model finds each mistake.
func TestMutations(t *testing.T) {
	t.Parallel()
	for _, mu := range mutations {
		t.Run(strings.ReplaceAll(mu.name, " ", "-"), func(t *testing.T) {
			if mu.changesSomething(t); !*tryMutations {
				return
			}
			var next, found atomic.Int64
			found.Store(-1)
			var wg sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				wg.Go(func() {
					for found.Load() < 0 {
						seed := next.Add(1)
						if int(seed) > mu.within {
							return
						}
						// What the right rules do wrong too is a mistake of the model.
						right := mutation{keep: mu.keep, mutate: func(*builder, map[string][]rule) {}}
						if mu.history(int(seed)) != "" && right.history(int(seed)) == "" {
							found.CompareAndSwap(-1, seed)
						}
					}
				})
			}
			wg.Wait()
			if found.Load() < 0 {
				t.Errorf("not found in %d histories", mu.within)
			} else {
				t.Logf("found in history %d", found.Load())
			}
		})
	}
}
