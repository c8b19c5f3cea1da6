package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

// prefix is one that is not all addresses. Of IPv4 it sees host bits in octets that
// have nothing else. To see all of them takes a validation, and 1024 rules with 256
// prefixes in each of four lists leave no budget for one.
const (
	octet  = `[0-9]{1,3}\.`
	prefix = octet + `0\.0\.0/[1-8]|` + octet + octet + `0\.0/(9|1[0-6])|` + octet + octet + octet + `0/(1[7-9]|2[0-4])|` +
		octet + octet + octet + `[0-9]{1,3}/(2[5-9]|3[0-2])|[0-9a-fA-F:]*:[0-9a-fA-F:.]*/[1-9][0-9]*`
)

// constrainEntity is for one half of a rule.
func constrainEntity(s *schema) {
	p := s.Properties
	for name, pattern := range map[string]string{"nets": `^(0\.0\.0\.0/0|::/0|` + prefix + `)$`, "notNets": `^(` + prefix + `)$`} {
		p[name].set(256)
		p[name].Items.MaxLength, p[name].Items.Format, p[name].Items.Pattern = 43, "cidr", pattern
		p[name].check(`self.size() == 0 || [self[0].contains(':')].all(six, self.all(n, n.contains(':') == six))`, "IPv4 and IPv6 do not mix; write one rule for each")
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
	icmp := oneOf("self.protocol", 1, "ICMP") + " || " + oneOf("self.protocol", 58, "ICMPv6")
	s.check(`!has(self.icmp) && !has(self.notICMP) || has(self.protocol) && (`+icmp+`)`, "icmp and notICMP need protocol ICMP or ICMPv6")
	for _, name := range []string{"protocol", "notProtocol"} {
		field := "self." + name
		s.check(`!has(`+field+`) || !has(self.ipVersion) || (self.ipVersion == 4 ? !(`+oneOf(field, 58, "ICMPv6")+`) : !(`+oneOf(field, 1, "ICMP")+`))`, "ICMP is for IPv4, ICMPv6 for IPv6")
	}
	s.check(`!has(self.http) || self.action == 'Allow' && (!has(self.protocol) || `+oneOf("self.protocol", 6, "TCP")+`)`, "http is for rules that allow TCP only")

	// All prefixes of a rule are of one family. Those of one list agree, so the
	// first of each list speaks for it.
	any4, any6 := []string{"has(self.ipVersion) && self.ipVersion == 4"}, []string{"has(self.ipVersion) && self.ipVersion == 6"}
	for _, half := range []string{"source", "destination"} {
		for _, name := range []string{"nets", "notNets"} {
			list, stated := stated(half, name)
			any4 = append(any4, stated+" && !"+list+"[0].contains(':')")
			any6 = append(any6, stated+" && "+list+"[0].contains(':')")
		}
	}
	s.check(`!(`+strings.Join(any4, " || ")+`) || !(`+strings.Join(any6, " || ")+`)`, "IPv4 and IPv6 do not mix; write one rule for each")
	withPorts := oneOf("self.protocol", 6, "TCP") + " || " + oneOf("self.protocol", 17, "UDP") + " || " + oneOf("self.protocol", 132, "SCTP")
	for _, half := range []string{"source", "destination"} {
		for _, name := range []string{"ports", "notPorts"} {
			list, stated := stated(half, name)
			s.check(`!(`+stated+`) || (has(self.protocol) ? (`+withPorts+`) : `+list+`.all(p, type(p) == string && p.matches('[a-z]')))`, "ports need protocol TCP, UDP or SCTP")
		}
	}
}

// stated gives a list in one half of a rule, and the condition that it has elements.
func stated(half, name string) (list, stated string) {
	list = "self." + half + "." + name
	return list, "has(self." + half + ") && has(" + list + ") && " + list + ".size() > 0"
}

// oneOf tells whether a protocol is this one, written in any way.
func oneOf(field string, number int, name string) string {
	return fmt.Sprintf("%s == %d || %[1]s == '%[2]d' || %[1]s == '%[3]s'", field, number, name)
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
	p["egress"].Items.check(`!has(self.destination) || !has(self.destination.services) || (!has(self.destination.ports) || self.destination.ports.size() == 0) && (!has(self.destination.notPorts) || self.destination.notPorts.size() == 0)`, "services as destination excludes ports")
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
			p[name].check(paired, "every parenthesis needs its counterpart")
		}
	}
	if p["preDNAT"] != nil {
		for _, name := range []string{"preDNAT", "doNotTrack"} {
			s.check(fmt.Sprintf(`!has(self.%s) || !self.%[1]s || has(self.applyOnForward) && self.applyOnForward`, name), name+" needs applyOnForward: true")
		}
		s.check(`!self.?preDNAT.orValue(false) || !self.?doNotTrack.orValue(false)`, "preDNAT excludes doNotTrack")
		s.check(`!has(self.preDNAT) || !self.preDNAT || (!has(self.egress) || self.egress.size() == 0) && (!has(self.types) || !('Egress' in self.types))`, "preDNAT is for ingress only")
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
	name := `^` + nameSubdomain + `$`
	switch k.object.(type) {
	case calico.Tier:
		name = `^` + nameLabel + `$`
		s.check(`self.metadata.name.size() <= 63`, "the name of a tier has at most 63 characters")
		for _, t := range []struct{ name, order, action string }{{"kube-admin", "1000", "Pass"}, {"default", "1000000", "Deny"}, {"kube-baseline", "10000000", "Pass"}} {
			order, action := "1000000", "Deny" // what is not stated
			s.check(fmt.Sprintf(`self.metadata.name != '%s' || double(self.?spec.?order.orValue(%s.0)) == %s.0 && self.?spec.?defaultAction.orValue('%s') == '%s'`, t.name, order, t.order, action, t.action),
				fmt.Sprintf("tier %s is built in and cannot be changed; write order: %s and defaultAction: %s", t.name, t.order, t.action))
		}
	case calico.NetworkPolicy, calico.StagedNetworkPolicy:
		name = `^((` + nameLabel + `\.)?` + nameLabel + `|(knp|ossg)\.default\.` + nameSubdomain + `)$`
	case calico.GlobalNetworkPolicy, calico.StagedGlobalNetworkPolicy:
		name = `^(` + nameLabel + `\.)?` + nameLabel + `$`
	}
	s.Properties["metadata"].Properties = map[string]*schema{"name": {Type: "string", MaxLength: 253, Pattern: name}}
}
