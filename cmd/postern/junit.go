package main

import (
	"encoding/xml"
	"io"
	"strings"

	"github.com/postern-project/postern/filter/assertion"
)

// A JUnit report, in the part of it that every consumer reads: a suite for each
// file, a case for each flow. Its nearest thing to a definition is the schema of
// Jenkins' xunit plugin (junit-10.xsd).
type (
	junitReport struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class string `xml:"classname,attr"` // the assertion
		Name  string `xml:"name,attr"`      // the flow
		File  string `xml:"file,attr"`
		Line  int    `xml:"line,attr"`
		// Failure is a promise that does not hold, Error a fault of postern.
		Failure *junitFailure `xml:"failure"`
		Error   *junitFailure `xml:"error"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

func writeJUnit(w io.Writer, rep report) error {
	var out junitReport
	path := ""
	for i, r := range rep.Results {
		if i == 0 || r.Path != path {
			out.Suites = append(out.Suites, junitSuite{Name: r.Set})
			path = r.Path
		}
		suite := &out.Suites[len(out.Suites)-1]
		suite.Cases = append(suite.Cases, junitCaseOf(r))
		suite.Tests++
		out.Tests++
		switch r.Status {
		case assertion.Holds:
		case assertion.Bug:
			suite.Errors++
			out.Errors++
		default:
			suite.Failures++
			out.Failures++
		}
	}
	text, err := xml.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	_, err = escaper{w, "&#x%x;"}.Write([]byte(xml.Header + string(text) + "\n"))
	return err
}

func junitCaseOf(r assertion.Result) junitCase {
	c := junitCase{
		Class: r.Assertion, Name: r.Want.String() + " " + r.Flow(), File: r.Path, Line: r.Line,
	}
	failure := &junitFailure{Message: r.Outcome(), Type: r.Status.String(), Text: strings.Join(failureLines(r), "\n")}
	switch r.Status {
	case assertion.Holds:
	case assertion.Bug:
		c.Error = failure
	default:
		c.Failure = failure
	}
	return c
}
