package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestGenerated: the files in deploy/crds are those that this program writes.
func TestGenerated(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../crds", name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("deploy/crds/%s is not what crdgen writes; run: go run ./deploy/crdgen deploy/crds", name)
		}
	}
	there, err := os.ReadDir("../crds")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range there {
		if files[f.Name()] == nil {
			t.Errorf("deploy/crds/%s is not of crdgen's; remove it", f.Name())
		}
	}
}
