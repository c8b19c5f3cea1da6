package observe

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/flowlog"
)

// Filter says which events somebody wants to see. Each list holds if any of its
// values does, and an empty one always; all lists must hold. The zero Filter takes
// everything.
type Filter struct {
	// Verdicts are "allow", "deny" and "pending": whatever staged policies would
	// decide otherwise.
	Verdicts []string
	// Pods and Accounts are "namespace/name", or "namespace/" for all of a namespace,
	// at either end.
	Pods, Accounts []string
	// Policies are "namespace/name", or "name" of a global policy, that decided or, if
	// staged, would.
	Policies []string
	// Reasons are texts of filter.Reason.
	Reasons []string
	// Addresses hold either end.
	Addresses []netip.Prefix
}

// Values of Verdicts besides those of filter.Verdict.
const pendingVerdict = "pending"

// Bounds on what a client may ask for.
const maxValues = 64

// Check tells what is wrong with a filter, naming the field.
func (f *Filter) Check() error {
	for _, list := range f.lists() {
		if len(*list.values) > maxValues {
			return fmt.Errorf("%s: want %d at most", list.name, maxValues)
		}
		for _, v := range *list.values {
			if err := list.check(v); err != nil {
				return fmt.Errorf("%s %q: %w", list.name, v, err)
			}
		}
	}
	if len(f.Addresses) > maxValues {
		return fmt.Errorf("address: want %d at most", maxValues)
	}
	return nil
}

// list is one of the filter's lists of texts, with the name that users know it by.
type list struct {
	name   string
	values *[]string
	check  func(string) error
}

func (f *Filter) lists() []list {
	return []list{
		{"verdict", &f.Verdicts, func(v string) error {
			if v != filter.Accept.String() && v != filter.Drop.String() && v != pendingVerdict {
				return fmt.Errorf("want %s, %s or %s", filter.Accept, filter.Drop, pendingVerdict)
			}
			return nil
		}},
		{"pod", &f.Pods, checkNamed},
		{"account", &f.Accounts, checkNamed},
		{"policy", &f.Policies, func(v string) error {
			if v == "" || strings.Count(v, "/") > 1 {
				return fmt.Errorf("want NAMESPACE/NAME, or NAME of a global policy")
			}
			return nil
		}},
		{"reason", &f.Reasons, func(v string) error {
			var all []string
			for r := filter.NoReason + 1; r < filter.Reasons; r++ {
				if r.String() == v {
					return nil
				}
				all = append(all, r.String())
			}
			return fmt.Errorf("want one of %s", strings.Join(all, ", "))
		}},
	}
}

func checkNamed(v string) error {
	namespace, name, ok := strings.Cut(v, "/")
	if !ok || namespace == "" || strings.Contains(name, "/") {
		return fmt.Errorf("want NAMESPACE/NAME, or NAMESPACE/ for all of a namespace")
	}
	return nil
}

// Matches tells whether an event is to be seen.
func (f *Filter) Matches(e *flowlog.Event) bool {
	return (len(f.Verdicts) == 0 || slices.Contains(f.Verdicts, e.Verdict.String()) || e.Pending != nil && slices.Contains(f.Verdicts, pendingVerdict)) &&
		(len(f.Reasons) == 0 || slices.Contains(f.Reasons, e.Reason.String())) &&
		(len(f.Pods) == 0 || slices.ContainsFunc(f.Pods, func(v string) bool {
			return named(v, e.Src.Namespace, e.Src.Name) || named(v, e.Dst.Namespace, e.Dst.Name)
		})) &&
		(len(f.Accounts) == 0 || slices.ContainsFunc(f.Accounts, func(v string) bool {
			return named(v, e.Src.Namespace, e.Src.ServiceAccount) || named(v, e.Dst.Namespace, e.Dst.ServiceAccount)
		})) &&
		(len(f.Policies) == 0 || slices.ContainsFunc(f.Policies, func(v string) bool {
			return isPolicy(v, e.Rule) || e.Pending != nil && isPolicy(v, e.Pending.Rule)
		})) &&
		(len(f.Addresses) == 0 || slices.ContainsFunc(f.Addresses, func(p netip.Prefix) bool {
			return p.Contains(e.Tuple.Src) || p.Contains(e.Tuple.Dst)
		}))
}

// named tells whether "namespace/name", or "namespace/", means an object.
func named(value, namespace, name string) bool {
	if name == "" {
		return false // an address that is no pod's, or a pod without account
	}
	ns, n, _ := strings.Cut(value, "/")
	return ns == namespace && (n == "" || n == name)
}

func isPolicy(value string, i filter.RuleInfo) bool {
	return i.Name != "" && value == flowlog.PolicyName(i)
}

// Values gives the filter as the parameters of a query.
func (f *Filter) Values() url.Values {
	v := url.Values{}
	for _, l := range f.lists() {
		if len(*l.values) > 0 {
			v[l.name] = *l.values
		}
	}
	for _, p := range f.Addresses {
		v.Add("address", p.String())
	}
	return v
}

// FilterOf reads the parameters that Values makes, and ignores others.
func FilterOf(v url.Values) (f Filter, err error) {
	for _, l := range f.lists() {
		*l.values = v[l.name]
	}
	for _, text := range v["address"] {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return f, fmt.Errorf("address %q: %w", text, err)
		}
		f.Addresses = append(f.Addresses, p)
	}
	return f, f.Check()
}
