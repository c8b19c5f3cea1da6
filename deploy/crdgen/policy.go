package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

// constrainEntity is for one half of a rule.
func constrainEntity(s *schema) {
	p := s.Properties
	for name, bits := range map[string]string{"nets": "[0-9]+", "notNets": "[1-9][0-9]*"} {
		p[name].set(256)
		p[name].Items.MaxLength = 43
		p[name].Items.Pattern = `^[0-9a-fA-F.:]+/` + bits + `$`
		p[name].Items.check(`isCIDR(self) && cidr(self) == cidr(self).masked()`, "write a prefix without host bits, such as 10.0.0.0/24 or fd00:1::/64")
		p[name].check(`self.all(n, n.contains(':')) || !self.exists(n, n.contains(':'))`, "IPv4 and IPv6 do not mix; write one rule for each")
	}
	p["ports"].MaxItems, p["notPorts"].MaxItems = 50, 50
	p["selector"].selector(selector)
	p["selector"].withoutGlobal()
	p["notSelector"].selector(selector)
	p["namespaceSelector"].selector(globalSelector)
	var others []string
	for _, name := range []string{"selector", "notSelector", "namespaceSelector"} {
		others = append(others, fmt.Sprintf("(!has(self.%s) || self.%[1]s == '')", name))
	}
	for _, name := range []string{"nets", "notNets"} {
		others = append(others, fmt.Sprintf("(!has(self.%s) || self.%[1]s.size() == 0)", name))
	}
	others = append(others, "!has(self.serviceAccounts)")
	s.check(`!has(self.services) || `+strings.Join(others, " && "), "services stands alone; write two rules")
}

// constrainRule is for a rule of either direction.
func constrainRule(s *schema) {
	s.Required = []string{"action"}
	s.Properties["ipVersion"].check(`self in [4, 6]`, "write 4 or 6")
	s.check(`!has(self.icmp) && !has(self.notICMP) || has(self.protocol) && string(self.protocol) in ['ICMP', 'ICMPv6', '1', '58']`, "icmp and notICMP need protocol ICMP or ICMPv6")
	for _, name := range []string{"protocol", "notProtocol"} {
		s.check(fmt.Sprintf(`!has(self.%s) || !has(self.ipVersion) || !(string(self.%[1]s) in (self.ipVersion == 4 ? ['ICMPv6', '58'] : ['ICMP', '1']))`, name), "ICMP is for IPv4, ICMPv6 for IPv6")
	}
	s.check(`!has(self.http) || self.action == 'Allow' && (!has(self.protocol) || string(self.protocol) in ['TCP', '6'])`, "http is for rules that allow TCP only")

	// All prefixes of a rule are of one family. Those of one list agree, so the
	// first of each list speaks for it.
	var families, ports []string
	for _, half := range []string{"source", "destination"} {
		for _, list := range []string{"nets", "notNets"} {
			families = append(families, fmt.Sprintf(`self.?%s.?%s[?0].hasValue() ? [self.%[1]s.%[2]s[0].contains(':') ? 6 : 4] : []`, half, list))
		}
		for _, list := range []string{"ports", "notPorts"} {
			ports = append(ports, fmt.Sprintf(`self.?%s.?%s.orValue([])`, half, list))
		}
	}
	version := `(has(self.ipVersion) ? [self.ipVersion] : [])`
	all := version + " + (" + strings.Join(families, ") + (") + ")"
	s.check(`!(4 in (`+all+`)) || !(6 in (`+all+`))`, "IPv4 and IPv6 do not mix; write one rule for each")
	for _, list := range ports {
		s.check(list+`.size() == 0 || (has(self.protocol) ? string(self.protocol) in ['TCP', 'UDP', 'SCTP', '6', '17', '132'] : `+
			list+`.all(p, type(p) == string && p.matches('[a-z]')))`, "ports need protocol TCP, UDP or SCTP")
	}
}

// constrainSpec is for the specs of policies, and of profiles, which have rules too.
func constrainSpec(t reflect.Type, s *schema) {
	switch t {
	case reflect.TypeFor[calico.NetworkPolicySpec](), reflect.TypeFor[calico.GlobalNetworkPolicySpec](),
		reflect.TypeFor[calico.StagedNetworkPolicySpec](), reflect.TypeFor[calico.StagedGlobalNetworkPolicySpec](), reflect.TypeFor[calico.ProfileSpec]():
	case reflect.TypeFor[calico.StagedKubernetesNetworkPolicySpec]():
		p := s.Properties
		p["policyTypes"].set(2)
		p["ingress"].MaxItems, p["egress"].MaxItems = 1024, 1024
		s.check(`!has(self.stagedAction) || self.stagedAction != 'Delete' || !has(self.podSelector) && !has(self.policyTypes) && !has(self.ingress) && !has(self.egress)`, "a staged deletion states nothing else")
		return
	default:
		return
	}
	p := s.Properties
	p["ingress"].MaxItems, p["egress"].MaxItems = 1024, 1024
	p["ingress"].Items.check(`!has(self.destination) || !has(self.destination.services)`, "services of an ingress rule goes in source")
	p["egress"].Items.check(`!has(self.source) || !has(self.source.services)`, "services of an egress rule goes in destination")
	p["egress"].Items.check(`!has(self.http)`, "http is for ingress rules only")
	p["egress"].Items.check(`!has(self.destination) || !has(self.destination.services) || self.destination.?ports.orValue([]).size() == 0 && self.destination.?notPorts.orValue([]).size() == 0`, "services as destination excludes ports")
	if p["types"] == nil {
		return
	}
	p["tier"].MaxLength = 63
	p["tier"].Pattern = `^(` + nameLabel + `)?$`
	p["types"].set(2)
	p["performanceHints"].set(1)
	for _, name := range []string{"selector", "serviceAccountSelector", "namespaceSelector"} {
		if p[name] != nil {
			p[name].selector(selector)
			p[name].withoutGlobal()
		}
	}
	if p["preDNAT"] != nil {
		for _, name := range []string{"preDNAT", "doNotTrack"} {
			s.check(fmt.Sprintf(`!has(self.%s) || !self.%[1]s || has(self.applyOnForward) && self.applyOnForward`, name), name+" needs applyOnForward: true")
		}
		s.check(`!self.?preDNAT.orValue(false) || !self.?doNotTrack.orValue(false)`, "preDNAT excludes doNotTrack")
		s.check(`!self.?preDNAT.orValue(false) || self.?egress.orValue([]).size() == 0 && !('Egress' in self.?types.orValue([]))`, "preDNAT is for ingress only")
	}
	if p["stagedAction"] != nil {
		var others []string
		for name := range p {
			if name != "stagedAction" && name != "tier" {
				others = append(others, "!has(self."+name+")")
			}
		}
		s.check(`!has(self.stagedAction) || self.stagedAction != 'Delete' || `+strings.Join(slices.Sorted(slices.Values(others)), " && "), "a staged deletion states nothing but its tier")
	}
}

// constrainRoot is for the object as a whole: its name, and built-in objects.
func constrainRoot(k kind, s *schema) {
	name, want := `^`+nameSubdomain+`$`, "a name is made of lower-case letters, digits, dashes and dots"
	switch k.object.(type) {
	case calico.Tier:
		name, want = `^`+nameLabel+`$`, "the name of a tier is made of lower-case letters, digits and dashes"
		s.check(`self.metadata.name.size() <= 63`, "the name of a tier has at most 63 characters")
		for _, t := range []struct{ name, order, action string }{{"kube-admin", "1000", "Pass"}, {"default", "1000000", "Deny"}, {"kube-baseline", "10000000", "Pass"}} {
			order, action := "1000000", "Deny" // what is not stated
			s.check(fmt.Sprintf(`self.metadata.name != '%s' || double(self.?spec.?order.orValue(%s.0)) == %s.0 && self.?spec.?defaultAction.orValue('%s') == '%s'`, t.name, order, t.order, action, t.action),
				fmt.Sprintf("tier %s is built in and cannot be changed; write order: %s and defaultAction: %s", t.name, t.order, t.action))
		}
	case calico.NetworkPolicy, calico.StagedNetworkPolicy:
		name, want = `^((`+nameLabel+`[.])?`+nameLabel+`|(knp|ossg)[.]default[.]`+nameSubdomain+`)$`, "the name of a policy has at most one dot"
	case calico.GlobalNetworkPolicy, calico.StagedGlobalNetworkPolicy:
		name, want = `^(`+nameLabel+`[.])?`+nameLabel+`$`, "the name of a policy has at most one dot"
	}
	name = strings.ReplaceAll(name, `\.`, `[.]`) // a backslash begins an escape in a CEL string
	s.check(`self.metadata.name.matches('`+name+`')`, want)
}
