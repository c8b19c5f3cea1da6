package assertion

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/policy/selector"
)

// reader collects mistakes while it walks a document. What it returns after one
// is not used.
type reader struct {
	path, assertion string
	errs            []error
}

func (r *reader) fail(n node, field, format string, args ...any) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, &Error{r.path, n.line, r.assertion, field, fmt.Sprintf(format, args...)})
	}
}

func (r *reader) document(doc node) Set {
	set := Set{Path: r.path}
	top := r.mapping(doc, "", "apiVersion", "kind", "metadata", "spec")
	if top == nil {
		return set
	}
	for _, fixed := range []struct{ field, want string }{{"apiVersion", APIVersion}, {"kind", Kind}} {
		if got := r.text(doc, top, "", fixed.field); got != "" && got != fixed.want {
			r.fail(top[fixed.field], fixed.field, "%q: want %s", got, fixed.want)
		}
	}
	if metadata, ok := top["metadata"]; ok {
		set.Name = r.name(metadata, r.mapping(metadata, "metadata", "name"), "metadata")
	} else {
		r.fail(doc, "metadata", "is required, with a name")
	}
	if _, ok := top["spec"]; !ok {
		r.fail(doc, "spec", "is required, with assertions")
		return set
	}
	spec := r.mapping(top["spec"], "spec", "assertions")
	lines := map[string]int{}
	for i, n := range r.list(top["spec"], spec, "spec", "assertions") {
		r.assertion = fmt.Sprint(i + 1)
		a := r.readAssertion(n)
		if first, twice := lines[a.Name]; twice && a.Name != "" {
			r.fail(n, "name", "line %d has an assertion of this name already", first)
		}
		lines[a.Name] = n.line
		set.Assertions = append(set.Assertions, a)
		r.assertion = ""
	}
	return set
}

func (r *reader) readAssertion(n node) Assertion {
	a := Assertion{Line: n.line}
	if !r.shaped(n, "", isMapping) {
		return a
	}
	if a.Name = r.name(n, n.fields, ""); a.Name != "" {
		r.assertion = fmt.Sprintf("%q", a.Name)
	}
	fields := r.mapping(n, "", "name", "allow", "deny")
	for _, kind := range []struct {
		field string
		want  explain.Verdict
	}{{"allow", explain.Allow}, {"deny", explain.Deny}} {
		if _, ok := fields[kind.field]; !ok {
			continue
		}
		for i, f := range r.list(n, fields, "", kind.field) {
			a.Flows = append(a.Flows, r.flow(f, fmt.Sprintf("%s[%d]", kind.field, i), kind.want))
		}
	}
	if fields["allow"].shape == isNull && fields["deny"].shape == isNull {
		r.fail(n, "", "says nothing; want flows under allow, deny or both")
	}
	return a
}

func (r *reader) flow(n node, at string, want explain.Verdict) Flow {
	f := Flow{Line: n.line, Want: want}
	fields := r.mapping(n, at, "from", "to", "port", "ports", "family")
	if fields == nil {
		return f
	}
	f.From = r.ends(n, fields, at, "from")
	f.To = r.ends(n, fields, at, "to")
	isPrefix := func(e End) bool { return e.Prefix.IsValid() }
	if slices.ContainsFunc(f.From, isPrefix) && slices.ContainsFunc(f.To, isPrefix) {
		r.fail(n, at, "from and to are prefixes; one end has to be a pod, or nobody decides the flow")
	}
	if family, ok := fields["family"]; ok {
		switch text := r.text(n, fields, at, "family"); text {
		case "4":
			f.Family = 4
		case "6":
			f.Family = 6
		case "":
		default:
			r.fail(family, at+".family", "%q: want 4 or 6", text)
		}
	}
	f.Ports = r.ports(n, fields, at)
	for _, p := range f.Ports {
		if family := p.Family(); family != 0 && f.Family != 0 && family != f.Family {
			r.fail(n, at, "%s is a protocol of IPv%d, and family is %d", p.Proto, family, f.Family)
		}
	}
	return f
}

func (r *reader) ports(n node, fields map[string]node, at string) (ports []Port) {
	_, one := fields["port"]
	_, many := fields["ports"]
	if one == many {
		r.fail(n, at, "want either port or ports")
		return nil
	}
	texts := []node{fields["port"]}
	if many {
		texts = r.list(n, fields, at, "ports")
	}
	for i, t := range texts {
		field := at + ".port"
		if many {
			field = fmt.Sprintf("%s.ports[%d]", at, i)
		}
		if !r.shaped(t, field, isScalar) {
			continue
		}
		p, err := ParsePort(t.text)
		if err != nil {
			r.fail(t, field, "%q: %v", t.text, err)
			continue
		}
		ports = append(ports, p)
	}
	return ports
}

// ends reads one end or a list of them.
func (r *reader) ends(parent node, fields map[string]node, at, field string) (ends []End) {
	n, ok := fields[field]
	if ok && n.shape != isList {
		return []End{r.end(n, at+"."+field)}
	}
	for i, e := range r.list(parent, fields, at, field) {
		ends = append(ends, r.end(e, fmt.Sprintf("%s.%s[%d]", at, field, i)))
	}
	return ends
}

func (r *reader) end(n node, field string) End {
	switch n.shape {
	case isMapping:
		return End{Selection: r.selection(n, field)}
	case isScalar:
		if p, err := netip.ParsePrefix(n.text); err == nil {
			return r.prefix(n, field, p)
		}
		e, err := ParseEnd(n.text)
		if err != nil {
			r.fail(n, field, "%q: want a pod as namespace/name, an address, a prefix, or a selection of pods in braces", n.text)
		}
		return e
	default:
		r.fail(n, field, "is %s; want a pod as namespace/name, an address, a prefix, or a selection of pods in braces", n.shape)
		return End{}
	}
}

func (r *reader) prefix(n node, field string, p netip.Prefix) End {
	switch {
	case p.Addr().Is4In6():
		r.fail(n, field, "%s: write an IPv4 prefix as IPv4", p)
	case p != p.Masked():
		r.fail(n, field, "%s: has bits after the prefix; write %s", p, p.Masked())
	}
	return End{Prefix: p}
}

func (r *reader) selection(n node, at string) *Selection {
	fields := r.mapping(n, at, "namespace", "serviceAccount", "selector", "namespaceSelector", "serviceAccountSelector", "orNone")
	s := &Selection{}
	if _, ok := fields["namespace"]; ok {
		s.Namespace = r.text(n, fields, at, "namespace")
	}
	if account, ok := fields["serviceAccount"]; ok {
		namespace, name, found := strings.Cut(r.text(n, fields, at, "serviceAccount"), "/")
		switch {
		case !found || namespace == "" || name == "" || strings.Contains(name, "/"):
			r.fail(account, at+".serviceAccount", "%q: want namespace/name", account.text)
		case s.Namespace != "" && s.Namespace != namespace:
			r.fail(account, at+".serviceAccount", "%q is not of namespace %s", account.text, s.Namespace)
		}
		s.Namespace, s.Account = namespace, name
	}
	for _, f := range []struct {
		name string
		into **selector.Selector
	}{{"selector", &s.Selector}, {"namespaceSelector", &s.NamespaceSelector}, {"serviceAccountSelector", &s.AccountSelector}} {
		if _, ok := fields[f.name]; ok {
			*f.into = r.selector(n, fields, at, f.name)
		}
	}
	if _, ok := fields["orNone"]; ok {
		switch text := r.text(n, fields, at, "orNone"); text {
		case "true":
			s.OrNone = true
		case "false", "":
		default:
			r.fail(fields["orNone"], at+".orNone", "%q: want true or false", text)
		}
		delete(fields, "orNone")
	}
	if len(fields) == 0 {
		r.fail(n, at, "selects by nothing; for every pod write {selector: all()}")
	}
	return s
}

func (r *reader) selector(n node, fields map[string]node, at, field string) *selector.Selector {
	text := r.text(n, fields, at, field)
	if text == "" {
		return nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		r.fail(fields[field], at+"."+field, "%v", err)
		return nil
	}
	if s.ContainsGlobal() {
		r.fail(fields[field], at+"."+field, "global() selects what has no namespace, and pods have one")
	}
	return s
}
