package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
)

// labelNames are the names of labels that one sort of selector can read.
type labelNames struct {
	universe
	known bool   // whether objects that carry them are in the snapshot at all
	of    string // what carries them
}

// asked is a selector with what it is evaluated on and where it stands.
type asked struct {
	selector *selector.Selector
	labels   *labelNames
	key      policy.Key
	field    string
}

// labelChecks looks for labels that nothing carries. It tells whether it found
// one that explains why a selector matches nothing.
func (c *checker) labelChecks(selectors ...asked) (found bool) {
	for _, s := range selectors {
		if s.selector == nil || !s.labels.known {
			continue
		}
		for _, label := range s.selector.Labels() {
			if !s.labels.universe[label] && c.labelMissing(s, label) {
				found = true
			}
		}
	}
	return found
}

func (c *checker) labelMissing(s asked, label string) (explained bool) {
	if near := nearest(label, slices.Sorted(maps.Keys(s.labels.universe))); near != "" {
		c.add(MisspeltLabel, s.key, s.field, fmt.Sprintf("no %s has the label %s", s.labels.of, label), "did you mean "+near+"?")
		return true
	}
	for _, other := range []struct {
		labels *labelNames
		advice string
	}{
		{&c.accountLabelNames, "write it in a selector of service accounts: serviceAccounts.selector in a rule, serviceAccountSelector in a policy"},
		{&c.namespaceLabelNames, "write it in namespaceSelector"},
		{&c.objectLabels, "write it in selector"},
	} {
		if other.labels != s.labels && other.labels.universe[label] {
			c.add(LabelOfOtherKind, s.key, s.field,
				fmt.Sprintf("no %s has the label %s; a %s has it", s.labels.of, label, other.labels.of), other.advice)
			return true
		}
	}
	c.add(UnknownLabel, s.key, s.field, fmt.Sprintf("no %s has the label %s", s.labels.of, label), "nothing to do if it is to be set later")
	return false
}

// nearest gives the candidate that a misspelt name was probably meant to be, or "".
// Of equally near ones it is the first.
func nearest(name string, candidates []string) string {
	// A third of a name may be wrong, and two letters at most: of short names
	// everything would be a neighbour.
	if len(name) < 2 {
		return ""
	}
	most := min(2, max(1, len(name)/3))
	best, at := "", most+1
	for _, candidate := range candidates {
		if candidate == name {
			continue
		}
		if strings.EqualFold(candidate, name) {
			return candidate
		}
		if d := distance(name, candidate, most); d < at {
			best, at = candidate, d
		}
	}
	return best
}

// distance counts the letters to insert, remove, exchange, or swap with their
// neighbour, to make a of b. Anything above most is only known to be above.
func distance(a, b string, most int) int {
	if d := len(a) - len(b); d > most || -d > most {
		return most + 1
	}
	var before []int // the row before the last
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
