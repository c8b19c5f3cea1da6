package convert

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	maxName        = 253
	maxAnnotations = 256 << 10 // bytes of keys and values together
)

// nameRule is what a kind demands of metadata.name beside its length (spec 1.9).
type nameRule struct {
	pattern *regexp.Regexp
	max     int
	want    string
}

const (
	nameLabel     = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
	nameSubdomain = nameLabel + `(\.` + nameLabel + `)*`
)

var (
	anyName = nameRule{regexp.MustCompile(`^` + nameSubdomain + `$`), maxName,
		"lower-case letters, digits, dashes and dots, beginning and ending with a letter or digit"}
	globalPolicyName = nameRule{regexp.MustCompile(`^(` + nameLabel + `\.)?` + nameLabel + `$`), maxName,
		"lower-case letters, digits and dashes, with at most one dot"}
	policyName = nameRule{regexp.MustCompile(`^((` + nameLabel + `\.)?` + nameLabel + `|(knp|ossg)\.default\.` + nameSubdomain + `)$`), maxName,
		"lower-case letters, digits and dashes, with at most one dot"}
	tierName = nameRule{regexp.MustCompile(`^` + nameLabel + `$`), 63,
		"lower-case letters, digits and dashes, without dots"}
)

func (n nameRule) allows(name string) bool {
	return len(name) <= n.max && n.pattern.MatchString(name)
}

// metadata checks name, labels and annotations. None of them changes what an
// object means, so none makes its rules faulty.
func (r *report) metadata(m *meta.ObjectMeta, name nameRule) {
	if !name.allows(m.Name) {
		r.add("metadata.name", "%q is no valid name; write at most %d %s", shorten(m.Name), name.max, name.want)
	}
	r.labels("metadata.labels", m.Labels)
	total := 0
	for _, k := range slices.Sorted(maps.Keys(m.Annotations)) {
		total += len(k) + len(m.Annotations[k])
		// The API server folds the case of annotation keys before it checks them.
		for _, why := range validation.IsQualifiedName(strings.ToLower(k)) {
			r.add("metadata.annotations["+k+"]", "not a valid annotation key: %s", why)
		}
	}
	if total > maxAnnotations {
		r.add("metadata.annotations", "%d bytes in all; at most %d are allowed, so keep long texts elsewhere", total, maxAnnotations)
	}
}

// labels reports invalid keys and values, and gives those that are valid.
func (r *report) labels(field string, labels map[string]string) map[string]string {
	var valid map[string]string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		before := r.count
		for _, why := range validation.IsQualifiedName(k) {
			r.add(field+"["+k+"]", "not a valid label key: %s", why)
		}
		for _, why := range validation.IsValidLabelValue(labels[k]) {
			r.add(field+"["+k+"]", "%q is not a valid label value: %s", shorten(labels[k]), why)
		}
		if r.count == before {
			if valid == nil {
				valid = make(map[string]string, len(labels))
			}
			valid[k] = labels[k]
		}
	}
	return valid
}
