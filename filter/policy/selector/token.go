package selector

import (
	"strings"
	"unicode/utf8"
)

// maxLabelLen is the longest label name that parses, in bytes.
const maxLabelLen = 512

// tokenKind is the kind of a token. Operators and punctuation are recognised by
// the token's text.
type tokenKind uint8

const (
	tokenEnd      tokenKind = iota
	tokenSymbol             // ( ) { } , ! != == && ||
	tokenWord               // a label, or an operator written as a word: only the place tells
	tokenFunction           // all( global( has(
	tokenString             // text is the literal, without its quotes
	tokenUnclosed           // a literal without closing quote; text is the quote
	tokenUnknown            // a character that begins no token
)

type token struct {
	kind   tokenKind
	text   string
	offset int // of the first byte in the selector
}

func (t token) is(symbol string) bool { return t.kind == tokenSymbol && t.text == symbol }
func (t token) isWord(w string) bool  { return t.kind == tokenWord && t.text == w }

// scanner cuts a selector into tokens. The text of a token is a substring of the
// selector.
type scanner struct {
	text string
	pos  int
}

// next gives the token at pos, after white space, and moves behind it. At the end
// it gives tokenEnd for ever; behind tokenUnclosed and tokenUnknown the parser
// stops.
func (s *scanner) next() token {
	for s.pos < len(s.text) && (s.text[s.pos] == ' ' || s.text[s.pos] == '\t') {
		s.pos++
	}
	rest := s.text[s.pos:]
	if rest == "" {
		return token{tokenEnd, "", s.pos}
	}
	switch c := rest[0]; c {
	case '(', ')', '{', '}', ',':
		return s.take(tokenSymbol, 1)
	case '"', '\'':
		end := strings.IndexByte(rest[1:], c)
		if end < 0 {
			return s.take(tokenUnclosed, 1)
		}
		t := s.take(tokenString, 1+end+1)
		t.text = rest[1 : 1+end]
		return t
	}
	for _, symbol := range [...]string{"==", "!=", "!", "&&", "||"} {
		if strings.HasPrefix(rest, symbol) {
			return s.take(tokenSymbol, len(symbol))
		}
	}
	n := 0
	for n < len(rest) && isLabelByte(rest[n]) {
		n++
	}
	if n == 0 {
		_, size := utf8.DecodeRuneInString(rest)
		return s.take(tokenUnknown, size)
	}
	if n < len(rest) && rest[n] == '(' && isFunction(rest[:n]) {
		return s.take(tokenFunction, n+1)
	}
	return s.take(tokenWord, n)
}

func (s *scanner) take(kind tokenKind, n int) token {
	t := token{kind, s.text[s.pos : s.pos+n], s.pos}
	s.pos += n
	return t
}

func isFunction(word string) bool { return word == "all" || word == "global" || word == "has" }

func isLabelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '_' || c == '.' || c == '/' || c == '-'
}
