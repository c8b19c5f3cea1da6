package main

import (
	"reflect"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/api/pkg/lib/numorstring"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The grammar of selectors as a regular expression. It does not pair parentheses:
// paired does, where the API server's budget for validations allows it.
const (
	blank     = `[ \t]*`
	literal   = `("[^"]*"|'[^']*')`
	literals  = `\{` + blank + `(` + literal + `(` + blank + `,` + blank + literal + `)*(` + blank + `,)?)?` + blank + `\}`
	label     = `[A-Za-z0-9_./-]+`
	condition = `(all\(` + blank + `\)|has\(` + blank + label + blank + `\)|` + label + `(` +
		blank + `(==|!=)` + blank + literal + `|` +
		`[ \t]+(contains|starts` + blank + `with|ends` + blank + `with)` + blank + literal + `|` +
		`[ \t]+(not` + blank + `)?in` + blank + literals + `))`
	operand        = `[!( \t]*` + condition + `[) \t]*`
	expression     = `[ \t]*|` + operand + `((&&|\|\|)` + operand + `)*`
	selector       = `^(` + expression + `)$`
	globalSelector = `^(` + expression + `|[( \t]*global\([ \t]*\)[) \t]*)$`

	paired = `self.findAll("\"[^\"]*\"|'[^']*'|[(]").filter(t, t == '(').size() == self.findAll("\"[^\"]*\"|'[^']*'|[)]").filter(t, t == ')').size()`
)

const (
	nameLabel     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	nameSubdomain = nameLabel + `(\.` + nameLabel + `)*`

	portNumber = `([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])`
	portName   = `([a-z0-9]+-)*[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*`
	byte1      = `([1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])`
)

// constrain adds what convert demands of a type's values, wherever they stand.
func (r reader) constrain(t reflect.Type, s *schema) {
	p := s.Properties
	switch t {
	case reflect.TypeFor[calico.Action]():
		s.Enum = []string{"Allow", "Deny", "Log", "Pass"}
	case reflect.TypeFor[calico.PolicyType]():
		s.Enum = []string{"Ingress", "Egress"}
	case reflect.TypeFor[calico.PolicyPerformanceHint]():
		s.Enum = []string{string(calico.PerfHintAssumeNeededOnEveryNode)}
	case reflect.TypeFor[calico.StagedAction]():
		s.Enum = []string{"Set", "Delete", "Learn", "Ignore"}
	case reflect.TypeFor[numorstring.Protocol]():
		s.Pattern = `^(TCP|UDP|ICMP|ICMPv6|SCTP|UDPLite|` + byte1 + `)$`
		s.between(1, 255)
		s.MaxLength = 7
	case reflect.TypeFor[numorstring.Port]():
		s.Pattern = `^(` + portNumber + `|` + portNumber + `:` + portNumber + `|` + portName + `)$`
		s.between(1, 65535)
		s.MaxLength = 15
		s.check(`type(self) != string || !self.contains(':') || int(self.split(':')[0]) <= int(self.split(':')[1])`, "a range of ports ends before it begins")
	case reflect.TypeFor[calico.ICMPFields]():
		p["type"].between(0, 254)
		p["code"].between(0, 255)
		s.check(`!has(self.code) || has(self.type)`, "code needs type beside it")
	case reflect.TypeFor[calico.HTTPPath]():
		for _, name := range []string{"exact", "prefix"} {
			p[name].MaxLength = 1024
			p[name].Pattern = `^(/[^?# ]*)?$`
		}
		s.check(`(has(self.exact) && self.exact != '') != (has(self.prefix) && self.prefix != '')`, "write one of exact and prefix")
	case reflect.TypeFor[calico.HTTPMatch]():
		p["methods"].set(20)
		p["paths"].MaxItems = 20
	case reflect.TypeFor[calico.ServiceMatch]():
		s.Required = []string{"name"}
		p["name"].MinLength = 1
		if !r.namespaced {
			s.Required = []string{"name", "namespace"}
			p["namespace"].MinLength = 1
		}
	case reflect.TypeFor[calico.ServiceAccountMatch]():
		p["names"].ListType = "set"
		p["selector"].selector(selector)
	case reflect.TypeFor[calico.EntityRule]():
		constrainEntity(s)
	case reflect.TypeFor[calico.Rule]():
		constrainRule(s)
	case reflect.TypeFor[calico.TierSpec]():
		p["defaultAction"].Enum = []string{"Deny", "Pass"}
	case reflect.TypeFor[calico.EndpointPort]():
		s.Required = []string{"name", "protocol", "port"}
		p["name"].Pattern, p["name"].MaxLength = `^`+portName+`$`, 15
		p["protocol"].Pattern = `^(TCP|UDP|SCTP|6|17|132)$`
		p["protocol"].check(`type(self) == string || self in [6, 17, 132]`, "write TCP, UDP or SCTP")
		p["port"].between(1, 65535)
	case reflect.TypeFor[calico.HostEndpointSpec]():
		s.Required = []string{"node"}
		p["node"].MinLength = 1
		p["interfaceName"].Pattern = `^(\*|[a-zA-Z0-9_.-]{1,15})?$`
		p["ports"].MaxItems = 1024
		p["expectedIPs"].Items.MaxLength = 45
		p["expectedIPs"].MaxItems = 1024
		p["expectedIPs"].Items.check(`isIP(self)`, "write an address such as 10.0.0.1 or fd00::1")
		s.check(`has(self.interfaceName) && self.interfaceName != '' || has(self.expectedIPs) && self.expectedIPs.size() > 0`, "write interfaceName or expectedIPs")
	case reflect.TypeFor[calico.NetworkSetSpec](), reflect.TypeFor[calico.GlobalNetworkSetSpec]():
		p["nets"].Items.MaxLength = 49
		p["nets"].MaxItems = 65536
		p["nets"].Items.check(`isCIDR(self) || isIP(self)`, "write a prefix or an address such as 10.0.0.0/24 or fd00::1")
	case reflect.TypeFor[calico.ProfileSpec]():
		p["labelsToApply"].MaxProperties = 256
		p["labelsToApply"].AdditionalProperties.MaxLength = 63
		p["labelsToApply"].AdditionalProperties.Pattern = `^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
		p["labelsToApply"].check(`self.all(k, !format.qualifiedName().validate(k).hasValue())`, "keys must be valid label keys")
	case reflect.TypeFor[meta.LabelSelectorRequirement]():
		s.Required = []string{"key", "operator"}
		p["operator"].Enum = []string{"In", "NotIn", "Exists", "DoesNotExist"}
		s.check(`(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)`, "In and NotIn need values, Exists and DoesNotExist have none")
	case reflect.TypeFor[networking.PolicyType]():
		s.Enum = []string{"Ingress", "Egress"}
	case reflect.TypeFor[core.Protocol]():
		s.Enum = []string{"TCP", "UDP", "SCTP"}
	case reflect.TypeFor[networking.IPBlock]():
		s.Required = []string{"cidr"}
		p["cidr"].Format, p["except"].Items.Format = "cidr", "cidr"
	case reflect.TypeFor[networking.NetworkPolicyPeer]():
		s.check(`has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))`, "write an ipBlock, or selectors")
	case reflect.TypeFor[networking.NetworkPolicyPort]():
		p["port"].between(1, 65535)
		p["port"].Pattern, p["port"].MaxLength = `^`+portName+`$`, 15
		p["endPort"].between(1, 65535)
		s.check(`!has(self.endPort) || has(self.port) && type(self.port) == int && self.port <= self.endPort`, "endPort needs a port that is a number and not greater")
	case reflect.TypeFor[networking.NetworkPolicyIngressRule](), reflect.TypeFor[networking.NetworkPolicyEgressRule]():
		p["ports"].MaxItems = 256
		for _, peers := range []string{"from", "to"} {
			if p[peers] != nil {
				p[peers].MaxItems = 256
			}
		}
	}
	constrainSpec(t, s)
}

// set makes a list one without repetitions.
func (s *schema) set(max int) { s.ListType, s.MaxItems = "set", max }

// selector makes a string a selector.
func (s *schema) selector(pattern string) {
	s.MaxLength, s.Pattern = 1024, pattern
}

// withoutGlobal refuses the text, as Calico does, wherever it stands.
func (s *schema) withoutGlobal() {
	s.check(`!self.contains('global(')`, "must not contain global(); only a rule's namespaceSelector may")
}
