package convert

import (
	"maps"
	"slices"
	"strconv"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/postern-project/postern/filter/policy/selector"
)

// isPod is true of pods only: sets and host endpoints have no orchestrator label
// that counts.
var isPod = selector.Equals("projectcalico.org/orchestrator", "k8s")

// podTerms gives the selector of the pods that a Kubernetes selector picks. A
// nil or empty one picks every pod.
func (r *report) podTerms(field string, s *meta.LabelSelector) *selector.Selector {
	if s == nil || emptySelector(*s) {
		return isPod
	}
	return selector.And(isPod, r.terms(field, s))
}

// terms builds the tree of a Kubernetes selector; an empty one is all(). Of an
// invalid selector the caller must not use the result.
func (r *report) terms(field string, s *meta.LabelSelector) *selector.Selector {
	var terms []*selector.Selector
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		at := field + ".matchLabels[" + k + "]"
		r.labelKey(at, k)
		r.labelValue(at, s.MatchLabels[k])
		terms = append(terms, selector.Equals(k, s.MatchLabels[k]))
	}
	for i, e := range s.MatchExpressions {
		at := field + ".matchExpressions[" + strconv.Itoa(i) + "]"
		r.labelKey(at+".key", e.Key)
		for j, v := range e.Values {
			r.labelValue(at+".values["+strconv.Itoa(j)+"]", v)
		}
		set := e.Operator == meta.LabelSelectorOpIn || e.Operator == meta.LabelSelectorOpNotIn
		if set && len(e.Values) == 0 {
			r.add(at+".values", "not given; operator %s needs at least one", e.Operator)
		}
		switch e.Operator {
		case meta.LabelSelectorOpIn:
			terms = append(terms, selector.In(e.Key, e.Values...))
		case meta.LabelSelectorOpNotIn:
			terms = append(terms, selector.Not(selector.In(e.Key, e.Values...)))
		case meta.LabelSelectorOpExists:
			terms = append(terms, selector.Has(e.Key))
		case meta.LabelSelectorOpDoesNotExist:
			terms = append(terms, selector.Not(selector.Has(e.Key)))
		default:
			r.add(at+".operator", "%q is no operator; write In, NotIn, Exists or DoesNotExist", shorten(string(e.Operator)))
		}
		if !set && len(e.Values) > 0 {
			r.add(at+".values", "operator %s takes no values; remove them", shorten(string(e.Operator)))
		}
	}
	return selector.And(terms...)
}

func (r *report) labelKey(field, key string) {
	for _, why := range validation.IsQualifiedName(key) {
		r.add(field, "%q is not a valid label key: %s", shorten(key), why)
	}
}

func (r *report) labelValue(field, value string) {
	for _, why := range validation.IsValidLabelValue(value) {
		r.add(field, "%q is not a valid label value: %s", shorten(value), why)
	}
}

func emptySelector(s meta.LabelSelector) bool {
	return len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0
}
