package diff

import (
	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
)

// Report is the outcome of a comparison.
type Report struct {
	// Changes are sorted: what is now allowed first.
	Changes []Change `json:"changes"`
	// Identities are all that were compared; Changes name them by index.
	Identities []*Identity `json:"identities"`
	// OnlyBefore and OnlyAfter have pods that only one side knows. Flows of
	// theirs were not compared.
	OnlyBefore []*Identity `json:"onlyBefore,omitempty"`
	OnlyAfter  []*Identity `json:"onlyAfter,omitempty"`
	// Protocols are those told apart; "other" in Traffic is every protocol else.
	Protocols []string `json:"protocols"`
	// Pairs is the number of identity pairs, and PairsDecided of those that
	// could differ at all and for which Decisions were taken.
	Pairs        int64 `json:"pairs"`
	PairsDecided int64 `json:"pairsDecided"`
	Decisions    int64 `json:"decisions"`
}

// Change is a change of verdict for the same reason, of all Traffic from each of
// From to each of To.
type Change struct {
	Now  string `json:"now"` // "allow" or "deny"
	From []int  `json:"from"`
	To   []int  `json:"to"`
	// FromText, ToText and TrafficText say the same for people.
	FromText    []string  `json:"fromText"`
	ToText      []string  `json:"toText"`
	Traffic     []Traffic `json:"traffic"`
	TrafficText string    `json:"trafficText"`
	Before      Side      `json:"before"`
	After       Side      `json:"after"`
	Example     Example   `json:"example"`
}

// Traffic is a part of a protocol. Empty lists do not constrain.
type Traffic struct {
	// Family is "IPv4" or "IPv6" if it is not both that the ends have.
	Family      string           `json:"family,omitempty"`
	Protocol    string           `json:"protocol"` // a name, a number, "other" or "any"
	Ports       []flow.PortRange `json:"ports,omitempty"`
	SourcePorts []flow.PortRange `json:"sourcePorts,omitempty"`
	// ICMP are ranges of type*256 + code.
	ICMP []flow.PortRange `json:"icmp,omitempty"`
}

// Side is what the end at which the flow is denied on one side says on this side.
type Side struct {
	Verdict   string `json:"verdict"`
	Direction string `json:"direction"`
	Reason    string `json:"reason"`
	Tier      string `json:"tier,omitempty"`
	// Rule decided; nil if no rule did.
	Rule *explain.RuleRef `json:"rule,omitempty"`
}

// Example is one flow of a change, as either side knows it.
type Example struct {
	From   string        `json:"from"` // "namespace/name" or an address
	To     string        `json:"to"`
	Before explain.Tuple `json:"before"`
	After  explain.Tuple `json:"after"`
}
