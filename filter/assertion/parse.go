package assertion

import (
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern/filter/explain"
)

// What a file of assertions states about itself.
const (
	APIVersion = "postern.dev/v1alpha1"
	Kind       = "Assertions"
)

const (
	// MaxBytes is the size of the largest file that is read.
	MaxBytes = 1 << 20
	// maxErrors is how many mistakes in one file are told at once.
	maxErrors = 20
	// maxName bounds names, in bytes: they stand in every line of a report.
	maxName = 200
)

// Set is the assertions of one file. It is read-only.
type Set struct {
	// Path is where it was read, for messages.
	Path string
	// Name is metadata.name.
	Name       string
	Assertions []Assertion
}

// Assertion is a promise about some flows.
type Assertion struct {
	// Name is unique in its Set.
	Name  string
	Line  int // in the file, from 1
	Flows []Flow
}

// Flow stands for every combination of its ends and ports.
type Flow struct {
	Line     int
	Want     explain.Verdict
	From, To []End
	Ports    []Port
	// Family is 4, 6, or 0 for each that both ends have.
	Family int
}

// Error is one mistake in a file.
type Error struct {
	Path string
	Line int // 0 if not known
	// Assertion is the name of the assertion, or its place in the list, counted
	// from 1; empty outside of one.
	Assertion string
	// Field is the path from the assertion, or from the document's root.
	Field, Message string
}

// Error prints "path:line: assertion name: field: message", without the parts
// that are empty.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Path)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Assertion != "" {
		fmt.Fprintf(&b, ": assertion %s", e.Assertion)
	}
	if e.Field != "" {
		fmt.Fprintf(&b, ": %s", e.Field)
	}
	return b.String() + ": " + e.Message
}

// Parse reads a file of assertions. The error joins an *Error for each mistake,
// and then the Set is empty: a file is taken as a whole or not at all.
func Parse(path string, text []byte) (Set, error) {
	r := &reader{path: path}
	if len(text) > MaxBytes {
		r.fail(node{}, "", "%d bytes; at most %d are read, so split the file", len(text), MaxBytes)
		return Set{}, errors.Join(r.errs...)
	}
	doc, err := readDocument(string(text))
	if err != nil {
		r.fail(node{}, "", "%v", err)
		return Set{}, errors.Join(r.errs...)
	}
	set := r.document(doc)
	if len(r.errs) > 0 {
		return Set{}, errors.Join(r.errs...)
	}
	return set, nil
}
