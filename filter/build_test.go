package filter

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-project/postern/filter/flow"
)

// TestNewRefuses breaks the test spec in one place at a time.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(*Spec)
		want  string
	}{
		{"no class", func(s *Spec) { s.Classes = nil }, "class 0"},
		{"hosted class 0", func(s *Spec) { s.Classes[0].Hosted = true }, "class 0"},
		{"conflict in class 0", func(s *Spec) { s.Classes[0].Conflict = true }, "class 0"},
		{"prefix of no class", func(s *Spec) { s.Prefixes[0].Class = testClasses }, "class"},
		{"prefix of class 0", func(s *Spec) { s.Prefixes[0].Class = 0 }, "class 0"},
		{"zero prefix", func(s *Spec) { s.Prefixes[0].Prefix = netip.Prefix{} }, "prefix"},
		{"host bits", func(s *Spec) { s.Prefixes[0].Prefix = netip.MustParsePrefix("10.0.0.1/8") }, "prefix 10.0.0.1/8"},
		{"mapped prefix", func(s *Spec) { s.Prefixes[0].Prefix = netip.MustParsePrefix("::ffff:10.0.0.0/104") }, "prefix ::ffff"},
		{"prefix twice", func(s *Spec) { s.Prefixes = append(s.Prefixes, s.Prefixes[0]) }, "twice"},
		{"program out of range", func(s *Spec) { s.Classes[client].Programs[1] = 4 }, "class 1: program 4"},
		{"negative program", func(s *Spec) { s.Classes[client].Programs[0] = -1 }, "class 1: program -1"},
		{"pod with a host's program", func(s *Spec) { s.Programs[0].Final = FinalOpen }, "program 0 is not one for pods"},
		{"unknown final", func(s *Spec) { s.Programs[0].Final = FinalUndecided + 1 }, "program 0: final"},
		{"nil segment", func(s *Spec) { s.Programs[1].Segments[0] = nil }, "nil segment"},
		{"rule 0", func(s *Spec) { s.Programs[1].Segments[0].Rules[0] = 0 }, "rule 0 of 7"},
		{"rule out of range", func(s *Spec) { s.Programs[1].Segments[0].Rules[0] = 8 }, "rule 8 of 7"},
		{"end out of range", func(s *Spec) { s.Programs[1].Segments[0].End = math.MaxUint32 }, "end"},
		{"end among the rules", func(s *Spec) { s.Programs[1].Segments[0].End = clientOut }, "not the end of a tier"},
		{"end that is a rule", func(s *Spec) { s.Programs[1].Segments[0].End = lastAllow }, "end of a tier"},
		{"rule that is an end", func(s *Spec) { s.Programs[1].Segments[0].Rules[0] = endIngress }, "end of a tier"},
		{"unknown action", func(s *Spec) { s.Rules[0].Info.Action = Log + 1 }, "rule 1: action"},
		{"unknown direction", func(s *Spec) { s.Rules[0].Info.Direction = 2 }, "rule 1: direction"},
		{"end that passes", func(s *Spec) { s.Rules[endIngress-1].Info.Action = Pass }, "rule 6: end of a tier"},
		{"end with a criterion", func(s *Spec) { s.Rules[endIngress-1].Proto = ptr(flow.TCP) }, "rule 6: end of a tier"},
		{"set over other classes", func(s *Spec) { s.Rules[0].Source.Classes = NewClassSet(nil, 3) }, "rule 1: a set over 3"},
		{"port of no class", func(s *Spec) {
			s.Rules[0].Source.NotPorts = &PortMatch{Named: NewClassPorts([]ClassPort{{testClasses, 6, 1}})}
		}, "rule 1: a port of class 6"},
		{"service of no class", func(s *Spec) { s.Rules[0].Destination.Service = NewClassPorts([]ClassPort{{math.MaxUint32, 6, 1}}) }, "rule 1: a port"},
		{"range upside down", func(s *Spec) { s.Rules[0].Source.Ports = &PortMatch{Ranges: []flow.PortRange{{Min: 2, Max: 1}}} }, "rule 1: port range"},
		{"endpoint without prefix", func(s *Spec) { s.Endpoints[0].Addrs[0] = netip.MustParseAddr("192.168.0.1") }, "endpoint ns/client"},
		{"hosted endpoint in a class that is not", func(s *Spec) { s.Classes[client].Hosted = false }, "endpoint ns/client"},
		{"host endpoint twice", func(s *Spec) { s.Hosts = append(s.Hosts, s.Hosts[0]) }, "host endpoint h: given twice"},
		{"host program out of range", func(s *Spec) { s.Hosts[0].Programs[HostPreDNAT][0] = 9 }, "host endpoint h: program 9"},
	} {
		spec := testSpec()
		tt.spoil(spec)
		rs, err := New(spec)
		if err == nil || rs != nil {
			t.Errorf("%s: no error", tt.name)
		} else if !strings.HasPrefix(err.Error(), "build ruleset: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %q does not say %q", tt.name, err, tt.want)
		}
	}
}

// TestNewCopies changes a Spec after New and looks for a difference.
func TestNewCopies(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	rs, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	before := rs.Decide(tuple("10.0.0.1", "10.0.0.2", flow.TCP, 80))
	spec.Classes[server] = Class{}
	spec.Programs[2] = Program{}
	spec.Rules[allowWeb-1] = Rule{}
	if after := rs.Decide(tuple("10.0.0.1", "10.0.0.2", flow.TCP, 80)); after != before {
		t.Errorf("%+v became %+v", before, after)
	}
}

func TestClassSet(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, classes := range []int{1, 63, 64, 65, 200, 1000} {
		for _, percent := range []int{0, 1, 50, 99, 100} {
			bitmap := make([]uint64, (classes+63)/64+1)
			members := 0
			for c := range classes {
				if rng.IntN(100) < percent {
					bitmap[c/64] |= 1 << (c % 64)
					members++
				}
			}
			bitmap[len(bitmap)-1] |= 1 << 63 // beyond classes: to be ignored
			s := NewClassSet(bitmap, classes)
			for c := range classes {
				if want := bitmap[c/64]>>(c%64)&1 == 1; s.Contains(ClassID(c)) != want {
					t.Errorf("%d classes, %d%%: Contains(%d) is not %v", classes, percent, c, want)
				}
			}
			if s.Empty() != (members == 0) {
				t.Errorf("%d classes, %d members: Empty is %v", classes, members, s.Empty())
			}
			if (percent == 0 || percent == 100) && len(s.words) != 0 {
				t.Errorf("%d classes, %d%%: %d words stored, want none", classes, percent, len(s.words))
			}
		}
	}
	if s := (*ClassSet)(nil); !s.Contains(0) || !s.Contains(math.MaxUint32) || s.Empty() {
		t.Error("the nil set does not hold every class")
	}
	one := NewClassSet(append(make([]uint64, 50), 2), 10_000)
	if len(one.words) != 1 {
		t.Errorf("one member in %d words", len(one.words))
	}
}

func TestClassPorts(t *testing.T) {
	t.Parallel()
	in := []ClassPort{{3, flow.TCP, 80}, {3, flow.TCP, 80}, {0, 0, 0}, {trieMax, 255, math.MaxUint16}}
	s := NewClassPorts(in)
	for _, p := range in {
		if !s.Contains(p) {
			t.Errorf("%v is missing", p)
		}
	}
	for _, p := range []ClassPort{{3, flow.TCP, 81}, {3, flow.UDP, 80}, {4, flow.TCP, 80}, {0, 0, 1}} {
		if s.Contains(p) {
			t.Errorf("%v is there", p)
		}
	}
	if (*ClassPorts)(nil).Contains(in[0]) || NewClassPorts(nil).Contains(ClassPort{}) {
		t.Error("an empty set has a member")
	}
}

const trieMax = ClassID(math.MaxUint32)
