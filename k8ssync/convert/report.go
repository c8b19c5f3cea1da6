package convert

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/postern-project/postern/filter/policy"
)

// maxProblems bounds what is reported of one object. Beyond it problems are
// counted only: an object of megabytes must not become a report of gigabytes.
const maxProblems = 64

// report collects what is wrong with one object.
type report struct {
	key                policy.Key
	problems, warnings []policy.Problem
	count              int // problems found, reported or not

	// What decoding could not make sense of. All of it is among problems, and
	// decodeFaults holds the same paths, so that the zero value a faulty field
	// was left with is not reported a second time.
	decodeFaults map[string]bool
	// noEndpoints: which endpoints the policy is for cannot be known.
	noEndpoints bool
	// unknownSpec: something in spec, outside the rules, is not understood.
	unknownSpec bool
	// noTypes: the list of types is not readable.
	noTypes bool
	// allFaulty: no rule can be taken as written.
	allFaulty bool
	// faultyRules holds paths such as "spec.ingress[2]"; the path of a whole list
	// means that the list is not readable.
	faultyRules map[string]bool
}

// add reports a problem of a field, unless decoding reported it already.
func (r *report) add(field, format string, args ...any) {
	r.count++
	if r.decodedBadly(field) {
		return
	}
	r.append(field, fmt.Sprintf(format, args...))
}

func (r *report) append(field, message string) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, policy.Problem{Object: r.key, Field: field, Message: message})
	}
}

// warn reports something that does not make the object invalid.
func (r *report) warn(field, format string, args ...any) {
	if len(r.warnings) < maxProblems {
		r.warnings = append(r.warnings, policy.Problem{Object: r.key, Field: field, Message: fmt.Sprintf(format, args...)})
	}
}

// decodedBadly tells whether the field, or one that holds it, has a decode fault.
func (r *report) decodedBadly(field string) bool {
	if len(r.decodeFaults) == 0 {
		return false
	}
	for {
		if r.decodeFaults[field] {
			return true
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return false
		}
		field = field[:i]
	}
}

// decodeFault records what decoding did not understand at a path, and what
// follows for the fail-closed reading. The empty path is the object as a whole.
func (r *report) decodeFault(f fault) {
	r.count++
	r.append(f.path, f.message)
	if r.decodeFaults == nil {
		r.decodeFaults, r.faultyRules = map[string]bool{}, map[string]bool{}
	}
	if !f.unknown {
		// An unknown field's path is not used by any check; a fault that holds
		// checked fields is.
		r.decodeFaults[f.path] = true
	}
	rest, inSpec := strings.CutPrefix(f.path, "spec.")
	if !inSpec {
		r.noEndpoints = r.noEndpoints || f.path == "spec"
		// An unknown field beside spec may have been meant to be spec.
		r.unknownSpec = r.unknownSpec || f.unknown
		r.allFaulty = r.allFaulty || f.path == "" || f.path == "metadata" || f.unknown
		return
	}
	top := rest
	if i := strings.IndexAny(rest, ".["); i >= 0 {
		top = rest[:i]
	}
	switch top {
	case "ingress", "egress":
		path := f.path
		if i := strings.IndexByte(path, ']'); i >= 0 {
			path = path[:i+1]
		}
		r.faultyRules[path] = true
	case "selector", "serviceAccountSelector", "namespaceSelector", "podSelector", "subject":
		r.noEndpoints = true
	case "types", "policyTypes":
		r.noTypes = true
	case "performanceHints", "stagedAction":
	default:
		r.unknownSpec, r.allFaulty = true, true
	}
}

// ruleFaulty tells whether the rule at path cannot be taken as written, given
// the number of problems there were before it was checked.
func (r *report) ruleFaulty(path string, before int) bool {
	return r.allFaulty || r.count > before || r.faultyRules[path]
}

func (r *report) result(value any) Result {
	if v := reflect.ValueOf(value); v.IsValid() && v.IsNil() {
		value = nil // a typed nil pointer
	}
	if n := r.count - len(r.problems); n > 0 && len(r.problems) == maxProblems {
		r.problems = append(r.problems, policy.Problem{Object: r.key, Message: fmt.Sprintf("%d more problems are not shown; mend these first", n)})
	}
	return Result{Key: r.key, Value: value, Problems: r.problems, Warnings: r.warnings}
}
