package lint

import (
	"fmt"
	"maps"
	"slices"

	"github.com/postern-project/postern/filter/policy"
)

// Severity says how sure it is that something has to be mended.
type Severity string

const (
	// Error: the object is refused, or cannot do what it says in any cluster.
	Error Severity = "error"
	// Warning: the object very probably does not do what was meant.
	Warning Severity = "warning"
	// Info: worth knowing, and often meant.
	Info Severity = "info"
)

// AtLeast tells whether s is as severe as t, or more.
func (s Severity) AtLeast(t Severity) bool { return s.rank() >= t.rank() }

func (s Severity) rank() int {
	return slices.Index([]Severity{Info, Warning, Error}, s) // -1 for what is none
}

// Finding is one thing that lint has to say of one object.
type Finding struct {
	// ID names the kind of finding; it does not change between versions.
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`

	Object policy.Key `json:"-"`
	// Origin is the file the object was read from; Check leaves it empty, since
	// a snapshot does not know.
	Origin string `json:"file,omitempty"`
	// Field is the path from the object's root; empty if the whole object is
	// meant.
	Field string `json:"field,omitempty"`

	Message string `json:"message"`
	// Advice says what to write instead. It is empty where Message does.
	Advice string `json:"advice,omitempty"`
}

// String prints "file: Kind namespace/name: field: message [id]", without the
// parts that are empty.
func (f Finding) String() string {
	s := ""
	if f.Origin != "" {
		s = f.Origin + ": "
	}
	if f.Object != (policy.Key{}) {
		s += f.Object.String() + ": "
	}
	if f.Field != "" {
		s += f.Field + ": "
	}
	return fmt.Sprintf("%s%s [%s]", s, f.Message, f.ID)
}

// The findings. The first four are of reading, not of Check.
const (
	Unreadable        = "unreadable"
	Invalid           = "invalid"
	ConversionWarning = "not-as-written"

	AccountClauseNeverMatches     = "account-clause-never-matches"
	AccountNotFound               = "account-not-found"
	AccountInOtherNamespace       = "account-in-other-namespace"
	AccountUnused                 = "account-unused"
	AccountSelectorMatchesNothing = "account-selector-matches-nothing"
	AccountNamesAndSelector       = "account-names-and-selector"
	NegativeAccountSelector       = "negative-account-selector"
	NegativeNamespaceSelector     = "negative-namespace-selector"
	NamespaceNotFound             = "namespace-not-found"
	NamespaceSelectorNoMatch      = "namespace-selector-matches-nothing"
	SelectorMatchesNothing        = "selector-matches-nothing"
	PolicySelectsNothing          = "policy-selects-nothing"
	SelectsEverything             = "selects-everything"
	ServiceNotFound               = "service-not-found"
	MisspeltLabel                 = "misspelt-label"
	LabelOfOtherKind              = "label-of-other-kind"
	UnknownLabel                  = "unknown-label"
	LogOnlyIsolates               = "log-only-isolates"
	InertRules                    = "inert-rules"
	ShadowedRule                  = "shadowed-rule"
	UnreachablePolicy             = "unreachable-policy"
	TierNotFound                  = "tier-not-found"
	PassInLastTier                = "pass-in-last-tier"
	OrderTie                      = "order-tie"
	NamedPortAnyProtocol          = "named-port-any-protocol"
	DenyOneFamily                 = "deny-one-family"
	NotNetsOneFamily              = "not-nets-one-family"
	HTTPNotEnforced               = "http-not-enforced"
	HostEndpointNotEnforced       = "host-endpoint-not-enforced"
	HostPolicyNotEnforced         = "host-policy-not-enforced"
	ReservedLabel                 = "reserved-label"
	DNSCutOff                     = "dns-cut-off"
)

// severities holds every finding; a finding has one severity, whatever it is
// found in, so that --fail-on means the same thing tomorrow.
var severities = map[string]Severity{
	Unreadable: Error, Invalid: Error, ConversionWarning: Warning,

	AccountClauseNeverMatches:     Error,
	AccountNotFound:               Warning,
	AccountInOtherNamespace:       Warning,
	AccountUnused:                 Info,
	AccountSelectorMatchesNothing: Warning,
	AccountNamesAndSelector:       Warning,
	NegativeAccountSelector:       Warning,
	NegativeNamespaceSelector:     Warning,
	NamespaceNotFound:             Warning,
	NamespaceSelectorNoMatch:      Warning,
	SelectorMatchesNothing:        Warning,
	PolicySelectsNothing:          Warning,
	SelectsEverything:             Warning,
	ServiceNotFound:               Warning,
	MisspeltLabel:                 Warning,
	LabelOfOtherKind:              Warning,
	UnknownLabel:                  Info,
	LogOnlyIsolates:               Warning,
	InertRules:                    Warning,
	ShadowedRule:                  Warning,
	UnreachablePolicy:             Warning,
	TierNotFound:                  Warning,
	PassInLastTier:                Warning,
	OrderTie:                      Info,
	NamedPortAnyProtocol:          Info,
	DenyOneFamily:                 Warning,
	NotNetsOneFamily:              Warning,
	HTTPNotEnforced:               Warning,
	HostEndpointNotEnforced:       Warning,
	HostPolicyNotEnforced:         Warning,
	ReservedLabel:                 Warning,
	DNSCutOff:                     Warning,
}

// SeverityOf gives a finding's severity, or "" if there is no such finding.
func SeverityOf(id string) Severity { return severities[id] }

// IDs lists all findings, sorted.
func IDs() []string { return slices.Sorted(maps.Keys(severities)) }
