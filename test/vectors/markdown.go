package vectors

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

type blockKind uint8

const (
	plainBlock blockKind = iota // a plain file: worlds and vectors
	worldBlock
	vectorsBlock
)

// block is one piece of YAML in a file; line is that of its first line, from 1.
type block struct {
	kind blockKind
	line int
	text string
}

// fence is the CommonMark code fence: up to three blanks, three or more equal
// marks, an info string.
var fence = regexp.MustCompile("^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$")

// blocks gives the YAML of a file: all of it for .yaml, .yml and .json and for
// text without any fence, else the blocks marked "yaml world" and "yaml vectors".
// Fences of other languages are prose.
func blocks(path, text string) ([]block, error) {
	plain := block{plainBlock, 1, text}
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
		return []block{plain}, nil
	}
	var found []block
	var open string // the fence that is open, empty outside
	var kept bool   // the open one is among found
	fences := 0
	for i, l := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(strings.TrimRight(l, " \t\r"))
		switch {
		case open == "" && m == nil:
		case open == "":
			fences++
			kind, keep, err := blockInfo(m[2])
			if err != nil {
				return found, fmt.Errorf("line %d: %w", i+1, err)
			}
			open, kept = m[1], keep
			if keep {
				found = append(found, block{kind, i + 2, ""})
			}
		case m != nil && m[2] == "" && m[1][0] == open[0] && len(m[1]) >= len(open):
			open = ""
		case kept:
			found[len(found)-1].text += strings.TrimSuffix(l, "\r") + "\n"
		}
	}
	if open != "" {
		return found, fmt.Errorf("the last block has no closing fence %s", open)
	}
	if fences == 0 {
		return []block{plain}, nil
	}
	return found, nil
}

// blockInfo reads a fence's info string. A "yaml" fence with an unknown second
// word is an error: a misspelt one would leave out its vectors.
func blockInfo(info string) (kind blockKind, keep bool, err error) {
	words := strings.Fields(info)
	if len(words) < 2 || words[0] != "yaml" && words[0] != "yml" {
		return plainBlock, false, nil
	}
	switch words[1] {
	case "world":
		return worldBlock, true, nil
	case "vectors":
		return vectorsBlock, true, nil
	default:
		return plainBlock, false, fmt.Errorf("block %q: want yaml world or yaml vectors", info)
	}
}
