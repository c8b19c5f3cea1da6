package selector

import "fmt"

// maxDepth bounds how deep parentheses may be nested. Calico admits selectors of
// up to 1024 characters, so none that it admits is refused here. Parsing and
// evaluating one of this depth takes about 1 MiB of stack (measured, amd64).
const maxDepth = 1024

// Parse reads an expression. Empty text, and white space, give All(). The text
// may be of any length; time and memory are linear in it, except that a chain
// of && or || put in parentheses again and again is copied once a level.
//
// Errors are *SyntaxError.
func Parse(text string) (*Selector, error) {
	p := parser{scan: scanner{text: text}}
	p.advance()
	if p.tok.kind == tokenEnd {
		return matchAll, nil
	}
	s, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokenEnd {
		return nil, p.unexpected(p.tok, "&&, || or the end of the selector")
	}
	return s, nil
}

// MustParse is Parse for texts known to be right; it panics on others.
func MustParse(text string) *Selector {
	s, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// parser is a recursive-descent parser, one method for each rule of the grammar
// in spec section 2. tok is the token to look at.
type parser struct {
	scan  scanner
	tok   token
	depth int // of parentheses around tok
}

func (p *parser) advance() { p.tok = p.scan.next() }

func (p *parser) or() (*Selector, error) {
	operands, err := p.operands("||", p.and)
	if err != nil {
		return nil, err
	}
	return Or(operands...), nil
}

func (p *parser) and() (*Selector, error) {
	operands, err := p.operands("&&", p.unary)
	if err != nil {
		return nil, err
	}
	return And(operands...), nil
}

func (p *parser) operands(separator string, operand func() (*Selector, error)) ([]*Selector, error) {
	var operands []*Selector
	for {
		s, err := operand()
		if err != nil {
			return nil, err
		}
		operands = append(operands, s)
		if !p.tok.is(separator) {
			return operands, nil
		}
		p.advance()
	}
}

func (p *parser) unary() (*Selector, error) {
	negated := false
	for p.tok.is("!") {
		negated = !negated
		p.advance()
	}
	s, err := p.primary()
	if err != nil || !negated {
		return s, err
	}
	return Not(s), nil
}

func (p *parser) primary() (*Selector, error) {
	switch {
	case p.tok.is("("):
		return p.group()
	case p.tok.kind == tokenFunction:
		return p.function()
	case p.tok.kind == tokenWord:
		return p.comparison()
	case p.tok.kind == tokenString:
		return nil, p.unexpected(p.tok, "a label, without quotes and left of the operator")
	}
	return nil, p.unexpected(p.tok, `a condition such as app == "web", has(app) or all()`)
}

func (p *parser) group() (*Selector, error) {
	if p.depth == maxDepth {
		return nil, syntaxError(p.scan.text, p.tok.offset, fmt.Sprintf("more than %d parentheses inside each other", maxDepth))
	}
	p.depth++
	p.advance()
	s, err := p.or()
	if err != nil {
		return nil, err
	}
	p.depth--
	return s, p.symbol(")", "&&, || or )")
}

func (p *parser) function() (*Selector, error) {
	name := p.tok.text
	p.advance()
	switch name {
	case "all(":
		return matchAll, p.symbol(")", ") after all(")
	case "global(":
		return matchGlobal, p.symbol(")", ") after global(")
	}
	label, err := p.label("a label name after has(")
	if err != nil {
		return nil, err
	}
	return Has(label), p.symbol(")", ") after the label name")
}

// comparison parses: label ws op.
func (p *parser) comparison() (*Selector, error) {
	label, err := p.label("a label name")
	if err != nil {
		return nil, err
	}
	if isFunction(label) && p.tok.is("(") {
		return nil, p.unexpected(p.tok, fmt.Sprintf("no space between %s and its parenthesis: %[1]s(", label))
	}
	operator := p.tok
	switch o := p.operator(); o {
	case opInvalid:
		expected := "==, !=, in, not in, contains, starts with or ends with after the label"
		if operator.kind == tokenEnd || operator.kind == tokenSymbol {
			expected += " (has(label) tests that a label is there)"
		}
		return nil, p.unexpected(operator, expected)
	case opIn, opNotIn:
		values, err := p.set()
		if err != nil {
			return nil, err
		}
		return inSet(o, label, values), nil
	default:
		value, err := p.literal("a value in quotes")
		if err != nil {
			return nil, err
		}
		return &Selector{op: o, label: label, value: value}, nil
	}
}

// operator reads an operator and moves behind it; opInvalid if there is none.
// Words are operators here only, so that in, contains and the others can be
// labels.
func (p *parser) operator() op {
	first := p.tok
	p.advance()
	switch {
	case first.is("=="):
		return opEqual
	case first.is("!="):
		return opNotEqual
	case first.isWord("in"):
		return opIn
	case first.isWord("notin"):
		return opNotIn
	case first.isWord("contains"):
		return opContains
	case first.isWord("startswith"):
		return opStartsWith
	case first.isWord("endswith"):
		return opEndsWith
	case first.isWord("not") && p.tok.isWord("in"):
		p.advance()
		return opNotIn
	case first.isWord("starts") && p.tok.isWord("with"):
		p.advance()
		return opStartsWith
	case first.isWord("ends") && p.tok.isWord("with"):
		p.advance()
		return opEndsWith
	}
	return opInvalid
}

// set parses a set of literals. It may be empty, and may end in a comma unless
// it is empty.
func (p *parser) set() ([]string, error) {
	if err := p.symbol("{", `a set such as {"a", "b"}`); err != nil {
		return nil, err
	}
	var values []string
	for !p.tok.is("}") {
		value, err := p.literal("a value in quotes or }")
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		if p.tok.is("}") {
			break
		}
		if err := p.symbol(",", ", or }"); err != nil {
			return nil, err
		}
	}
	p.advance()
	return values, nil
}

func (p *parser) label(expected string) (string, error) {
	t := p.tok
	if t.kind != tokenWord || len(t.text) > maxLabelLen {
		return "", p.unexpected(t, expected)
	}
	p.advance()
	return t.text, nil
}

func (p *parser) literal(expected string) (string, error) {
	t := p.tok
	if t.kind != tokenString {
		return "", p.unexpected(t, expected)
	}
	p.advance()
	return t.text, nil
}

func (p *parser) symbol(symbol, expected string) error {
	if !p.tok.is(symbol) {
		return p.unexpected(p.tok, expected)
	}
	p.advance()
	return nil
}
