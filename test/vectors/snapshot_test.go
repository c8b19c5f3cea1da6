package vectors

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern-project/postern/filter/policy"
)

// TestSnapshotJSON writes and reads the snapshot of every step of every vector.
func TestSnapshotJSON(t *testing.T) {
	t.Parallel()
	same := cmp.Options{
		cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
		cmpopts.EquateEmpty(),
	}
	files, err := Load(paths(t)...)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	check := func(id string, s *policy.Snapshot) {
		var b bytes.Buffer
		if err := policy.WriteJSON(&b, s); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		back, err := policy.ReadJSON(&b)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if d := cmp.Diff(s, back, same); d != "" {
			t.Errorf("%s (-written +read):\n%s", id, d)
		}
		checked++
	}
	for _, f := range files {
		for _, v := range f.Vectors {
			c := newCluster()
			if f.World != nil {
				c.apply(f.World)
			}
			for _, step := range append([]Step{v.Step}, v.Steps...) {
				c.apply(&step)
				check(v.ID, c.store.Snapshot())
			}
		}
	}
	if checked == 0 {
		t.Error("no snapshot was checked")
	}
}
