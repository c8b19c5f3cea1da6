package policy

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJSON(t *testing.T) {
	t.Parallel()
	s := &Snapshot{
		Generation: 7,
		Tiers:      []Tier{{Name: "t", Order: -1.5, DefaultAction: Pass}},
		Policies: []*Policy{
			{Kind: NetworkPolicy, Namespace: "ns", Name: "last", Order: Unordered, AppliesIngress: true, Ingress: []Rule{{Action: Log}, {Action: Allow}}},
			{Kind: GlobalNetworkPolicy, Name: "first", Order: -1e308},
		},
	}
	var b bytes.Buffer
	if err := WriteJSON(&b, s); err != nil {
		t.Fatal(err)
	}
	back, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, back); d != "" {
		t.Errorf("(-written +read):\n%s", d)
	}
}

func TestReadJSONRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, says string }{
		"nothing":                   {"", "EOF"},
		"another format":            {`{"format":2,"snapshot":{}}`, "format 2"},
		"no snapshot":               {`{"format":1}`, "want 1"},
		"unknown field":             {`{"format":1,"snapshot":{"Teirs":[]}}`, "Teirs"},
		"unknown field in a policy": {`{"format":1,"snapshot":{"Policies":[{"Selektor":"a"}]}}`, "Selektor"},
		"unknown field in a rule":   {`{"format":1,"snapshot":{"Policies":[{"Ingress":[{"Sauce":{}}]}]}}`, "Sauce"},
		"action":                    {`{"format":1,"snapshot":{"Policies":[{"Ingress":[{"Action":"Alow"}]}]}}`, "Alow"},
		"selector":                  {`{"format":1,"snapshot":{"Policies":[{"Selector":"a ="}]}}`, "selector"},
		"address":                   {`{"format":1,"snapshot":{"Endpoints":[{"Addrs":["10.0.0"]}]}}`, "10.0.0"},
	} {
		_, err := ReadJSON(strings.NewReader(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want an error that says %q", name, err, tc.says)
		}
	}
}
