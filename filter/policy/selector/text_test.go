package selector

import (
	"encoding/json"
	"testing"
)

func TestText(t *testing.T) {
	t.Parallel()
	for _, s := range []*Selector{nil, All(), MustParse("global()"), MustParse(`a == "x" && !has(b) || c in {"1", '2"'}`)} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var back *Selector
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if !back.Equal(s) {
			t.Errorf("%v became %s and then %v", s, b, back)
		}
	}
	if b, err := json.Marshal(Equals("a", `both ' and "`)); err == nil {
		t.Errorf("a selector that no expression can hold was written as %s", b)
	}
	var s *Selector
	if err := json.Unmarshal([]byte(`"a ="`), &s); err == nil {
		t.Error("a broken expression was read")
	}
}
