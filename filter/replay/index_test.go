package replay

import (
	"math/rand/v2"
	"testing"
)

// Against a map, with few keys and many collisions of slots.
func TestIndex(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	x, flows, places := newIndex(), make([]Flow, 3000), map[key]int32{}
	x.slots = make([]uint64, 2)
	var free []int32
	for i := range flows {
		free = append(free, int32(i))
	}
	for step := range 200_000 {
		k := key{low: end{0, uint64(rnd.IntN(60))}, high: end{uint64(rnd.IntN(3)), 7}, ports: uint32(rnd.IntN(12)), six: rnd.IntN(2) == 0}
		want, ok := places[k]
		if !ok {
			want = none
		}
		if got := x.find(&k, flows); got != want {
			t.Fatalf("step %d: found at %d, want %d", step, got, want)
		}
		switch {
		case ok && rnd.IntN(2) == 0:
			x.remove(&k, want)
			delete(places, k)
			free = append(free, want)
		case !ok && len(free) > 0:
			i := free[len(free)-1]
			free = free[:len(free)-1]
			flows[i].key = k
			places[k] = i
			x.add(&k, i)
		}
		if x.n != len(places) {
			t.Fatalf("step %d: %d, want %d", step, x.n, len(places))
		}
	}
	for k, i := range places {
		if x.find(&k, flows) != i {
			t.Fatal("lost a key")
		}
	}
}
