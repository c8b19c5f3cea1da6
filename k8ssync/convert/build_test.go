package convert

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/filter/policy/selector"
	"github.com/postern-project/postern/test/admission"
)

// manifest writes an object named "p", in namespace shop where its kind has one.
func manifest(kind, spec string) string { return admission.Manifest(kind, spec) }

func decodeYAML(t *testing.T, text string) Result {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("test manifest: %v\n%.200s", err, text)
	}
	r, err := Decode(raw)
	if err != nil {
		t.Fatalf("Decode: %v\n%.200s", err, text)
	}
	return r
}

// decodeValid decodes an object that must have no problems.
func decodeValid[T any](t *testing.T, text string) T {
	t.Helper()
	r := decodeYAML(t, text)
	if len(r.Problems) > 0 {
		t.Fatalf("problems: %v\n%s", r.Problems, text)
	}
	v, ok := r.Value.(T)
	if !ok {
		t.Fatalf("value is %T\n%s", r.Value, text)
	}
	return v
}

// lines prints problems without the object they all name.
func lines(problems []policy.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "  %s: %s\n", p.Field, p.Message)
	}
	return b.String()
}

// policyText prints what a policy does, one line for the policy and one for each
// rule. It leaves out what has its usual value.
func policyText(p *policy.Policy) string {
	if p == nil {
		return "nothing\n"
	}
	var b strings.Builder
	var words []string
	if p.Staged != policy.Enforced {
		words = append(words, "staged "+string(p.Staged))
	}
	words = append(words, fmt.Sprintf("tier %s order %v", p.Tier, p.Order))
	for _, s := range []struct {
		name string
		sel  *selector.Selector
	}{{"selector", p.Selector}, {"namespaces", p.NamespaceSelector}, {"accounts", p.ServiceAccountSelector}} {
		if s.sel != nil {
			words = append(words, s.name+" "+s.sel.String())
		}
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"ingress", p.AppliesIngress}, {"egress", p.AppliesEgress}, {"applyOnForward", p.ApplyOnForward}, {"doNotTrack", p.DoNotTrack}, {"preDNAT", p.PreDNAT}} {
		if f.set {
			words = append(words, f.name)
		}
	}
	fmt.Fprintln(&b, strings.Join(words, "; "))
	for _, r := range p.Ingress {
		fmt.Fprintln(&b, "  in "+ruleText(r))
	}
	for _, r := range p.Egress {
		fmt.Fprintln(&b, "  out "+ruleText(r))
	}
	return b.String()
}

func ruleText(r policy.Rule) string {
	words := []string{fmt.Sprintf("%d %s", r.Index, r.Action)}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if r.IPVersion != 0 {
		add("v%d", r.IPVersion)
	}
	proto := func(prefix string, p *policy.Protocol) {
		if p != nil && p.ByName {
			add("%s%s", prefix, p.Number)
		} else if p != nil {
			add("%s#%d", prefix, uint8(p.Number))
		}
	}
	proto("", r.Protocol)
	proto("!", r.NotProtocol)
	icmp := func(prefix string, m *policy.ICMPMatch) {
		if m != nil {
			add("%s %d", prefix, m.Type)
			if m.Code != nil {
				words[len(words)-1] += fmt.Sprintf("/%d", *m.Code)
			}
		}
	}
	icmp("icmp", r.ICMP)
	icmp("!icmp", r.NotICMP)
	entity := func(name string, e policy.EntityRule) {
		var parts []string
		part := func(s string) { parts = append(parts, s) }
		prefixes := func(sign string, list []netip.Prefix) {
			for _, p := range list {
				part(sign + p.String())
			}
		}
		prefixes("", e.Nets)
		prefixes("!", e.NotNets)
		if e.Selector != nil {
			part("sel(" + e.Selector.String() + ")")
		}
		if e.NotSelector != nil {
			part("!sel(" + e.NotSelector.String() + ")")
		}
		if e.NamespaceSelector != nil {
			part("ns(" + e.NamespaceSelector.String() + ")")
		}
		if sa := e.ServiceAccounts; sa != nil {
			part(fmt.Sprintf("sa%v(%s)", sa.Names, sa.Selector))
		}
		if e.Service != nil {
			part("svc " + e.Service.Namespace + "/" + e.Service.Name)
		}
		ports := func(sign string, list []policy.Port) {
			for _, p := range list {
				if p.Name != "" {
					part(sign + ":" + p.Name)
				} else {
					part(sign + ":" + p.PortRange.String())
				}
			}
		}
		ports("", e.Ports)
		ports("!", e.NotPorts)
		if len(parts) > 0 {
			add("%s %s", name, strings.Join(parts, " "))
		}
	}
	entity("from", r.Source)
	entity("to", r.Destination)
	if r.HTTP != nil {
		add("http %v %v", r.HTTP.Methods, r.HTTP.Paths)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Annotations)) {
		add("%s=%s", k, r.Annotations[k])
	}
	return strings.Join(words, ", ")
}

// golden compares with a file that is rewritten by -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

var sameValue = cmp.Options{
	cmp.Comparer(func(a, b *selector.Selector) bool { return a.Equal(b) }),
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
}

func asPolicy(r Result) *policy.Policy {
	p, _ := r.Value.(*policy.Policy)
	return p
}
