package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var (
	manualDir  = flag.String("manual", "", "write the manual pages into this directory, for the packages")
	manualDate = flag.Int64("manual-date", 0, "seconds since 1970, for the manual pages")
)

// TestManual: every command has a page, with its flags in it. With -manual it is what
// writes the pages.
func TestManual(t *testing.T) {
	dir := *manualDir
	if dir == "" {
		dir = t.TempDir()
	}
	date := time.Unix(*manualDate, 0).UTC()
	root := newRootCommand()
	root.DisableAutoGenTag = true
	forManual(root)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "postern", Manual: "postern"}, dir); err != nil {
		t.Fatal(err)
	}
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		if first := strings.Fields(c.Long + " " + c.Short)[0]; !bytes.Contains(page, []byte(first)) {
			t.Errorf("%s does not say what the command is for", name)
		}
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				check(sub)
			}
		}
	}
	check(root)
}

var indented = regexp.MustCompile(`(?m)^  `)

// forManual makes what is indented in a command's text an example that pages show as it
// stands: the generator takes the text for Markdown.
func forManual(c *cobra.Command) {
	c.Long = indented.ReplaceAllString(c.Long, "      ")
	for _, sub := range c.Commands() {
		forManual(sub)
	}
}
