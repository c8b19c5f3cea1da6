package rival

import (
	"fmt"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flow"
)

// Differ gives an error if a rival's verdict, or the rules it names, are not those
// of the engine's decision. names are RuleNames of the snapshot.
func Differ(rs *filter.Ruleset, d filter.Decision, v Verdict, names []string) error {
	if got, want := v.Accept, d.Verdict == filter.Accept; got != want {
		return fmt.Errorf("accepts: %t, the engine: %t", got, want)
	}
	for _, side := range []struct {
		dir    flow.Direction
		engine filter.Outcome
		number uint32
	}{{flow.Egress, d.Egress, v.Egress}, {flow.Ingress, d.Ingress, v.Ingress}} {
		want := ""
		if info := rs.RuleInfo(side.engine.Rule); side.engine.Rule != 0 && !info.EndOfTier() {
			want = RuleName(info.Kind, info.Namespace, info.Name, info.Direction, info.Index)
		}
		if got := names[side.number]; got != want {
			return fmt.Errorf("%s by rule %q, the engine by %q", side.dir, got, want)
		}
	}
	return nil
}
