package selector

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// SyntaxError is the error that Parse returns.
type SyntaxError struct {
	// Offset is the position of the mistake in bytes, from 0. It is the length
	// of the text if the text ends too early.
	Offset int
	// Column is the same position in characters, from 1.
	Column int
	// Message says what was found, what was expected, and often how to write it.
	Message string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("parse selector: column %d (byte offset %d): %s", e.Column, e.Offset, e.Message)
}

// lineBreakHint follows every error in a text with a line break, wherever the
// mistake is: block scalars are how line breaks get into selectors, and their
// last one cannot be seen in the manifest.
const lineBreakHint = "; there is a line break in the selector: YAML block scalars (| and >) end in a newline" +
	" and do not parse, write the selector in quotes on one line"

func syntaxError(text string, offset int, message string) error {
	if strings.ContainsAny(text, "\r\n") {
		message += lineBreakHint
	}
	return &SyntaxError{
		Offset:  offset,
		Column:  utf8.RuneCountInString(text[:offset]) + 1,
		Message: message,
	}
}

// unexpected reports that t stands where something else was expected.
func (p *parser) unexpected(t token, expected string) error {
	switch {
	case t.kind == tokenUnclosed:
		return syntaxError(p.scan.text, t.offset, "the quoted string that starts here has no closing "+t.text)
	case t.kind == tokenWord && len(t.text) > maxLabelLen:
		return syntaxError(p.scan.text, t.offset,
			fmt.Sprintf("the word that starts here is longer than the %d characters of a label name", maxLabelLen))
	}
	message := "expected " + expected + ", found " + describe(t)
	if h := hint(t); h != "" {
		message += "; " + h
	}
	return syntaxError(p.scan.text, t.offset, message)
}

func describe(t token) string {
	switch t.kind {
	case tokenEnd:
		return "the end of the selector"
	case tokenString:
		return "a quoted string"
	case tokenUnknown:
		if t.text == "\n" || t.text == "\r" {
			return "a line break"
		}
	}
	const most = 40 // bytes; label names can be much longer, and are ASCII
	if len(t.text) > most {
		return strconv.Quote(t.text[:most]) + "..."
	}
	return strconv.Quote(t.text)
}

// hint tells how to write what people bring from other languages.
func hint(t token) string {
	if t.kind == tokenString || t.kind == tokenEnd {
		return ""
	}
	switch strings.ToLower(t.text) {
	case "=":
		return "equality is written =="
	case "&", "and":
		return `"and" is written &&`
	case "|", "or":
		return `"or" is written ||`
	case "not":
		return `"not" is written !, or "not in" between a label and a set`
	case "<", ">", "~", "exists":
		return "there is no such operator"
	case "“", "”", "‘", "’", "`":
		return `only " and ' are quotes`
	}
	return ""
}
