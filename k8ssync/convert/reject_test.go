package convert

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-project/postern/test/admission"
)

const (
	gnp = "GlobalNetworkPolicy"
	np  = "NetworkPolicy"
)

// The golden file holds the text that users read; review it as such.
func TestRejections(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, c := range admission.Rejected {
		r := decodeYAML(t, c.Text())
		if len(r.Problems) == 0 {
			t.Errorf("%s: not rejected", c.Title)
		}
		for _, p := range r.Problems {
			if p.Object != r.Key {
				t.Errorf("%s: problem of %v in object %v", c.Title, p.Object, r.Key)
			}
		}
		fmt.Fprintf(&got, "%s\n%s", c.Title, lines(r.Problems))
	}
	golden(t, "testdata/rejections.txt", got.String())
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	for _, tt := range admission.Accepted {
		if r := decodeYAML(t, tt.Text()); len(r.Problems) > 0 || len(r.Warnings) > 0 {
			t.Errorf("%s:\n%s%s", tt.Title, lines(r.Problems), lines(r.Warnings))
		}
	}
}
