// Package selector is Calico's label selector language: it parses an expression
// once into a tree and evaluates the tree on labels.
//
// The grammar is that of Calico's selector tokenizer and parser. Labels stand
// left and quoted literals right; && binds tighter than ||; ! negates exactly
// one primary; the empty expression matches everything. Positive operators are
// false on an absent label, != and "not in" are true on it.
//
// A Selector is immutable and safe for use by any number of goroutines. What
// policy does with a selector beyond evaluating it (prefixing every label,
// giving all() a narrower meaning) is done on the tree and gives a new
// Selector: text is never pasted together, so no literal can change the meaning
// of what stands around it.
package selector
