package filter

import (
	"fmt"
	"testing"
)

// TestAccountsOfRulesetsStay: a Ruleset goes on knowing the labels it was made
// with, whatever the Builder is told later.
func TestAccountsOfRulesetsStay(t *testing.T) {
	t.Parallel()
	b := NewBuilder()
	for i := range 200 {
		b.SetNamespace(fmt.Sprint("n", i), map[string]string{"v": "1"})
		b.SetAccount(fmt.Sprint("n", i), "sa", map[string]string{"v": "1"})
	}
	first := b.Publish(1)
	for i := range 200 {
		name := fmt.Sprint("n", i)
		switch i % 4 {
		case 0:
			b.SetNamespace(name, map[string]string{"v": "2"})
			b.SetAccount(name, "sa", map[string]string{"v": "2"})
		case 1:
			b.RemoveNamespace(name)
		case 2:
			b.RemoveAccount(name, "sa")
		case 3:
			b.RemoveAccount(name, "sa")
			b.RemoveNamespace(name)
		}
	}
	second := b.Publish(2)
	for i := range 200 {
		for _, rs := range []*Ruleset{first, second} {
			a := Account{Namespace: fmt.Sprint("n", i), Name: "sa"}
			rs.accounts.describe(&a)
			got := [2]string{a.NamespaceLabels["v"], a.Labels["v"]}
			want := [2]string{"1", "1"}
			if rs == second {
				want = [][2]string{{"2", "2"}, {"", "1"}, {"1", ""}, {"", ""}}[i%4]
			}
			if got != want {
				t.Errorf("generation %d, namespace %d: %v, want %v", rs.generation, i, got, want)
			}
		}
	}
	if third := b.Publish(3); third.accounts != second.accounts {
		t.Error("nothing changed, and the accounts were copied")
	}
}
