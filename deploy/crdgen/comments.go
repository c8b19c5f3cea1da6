package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
)

// packages holds the syntax of packages that were read before, by path.
var packages = map[string][]*ast.File{}

// comments gives what the source says about each field of a struct.
func comments(t reflect.Type) (map[string]string, error) {
	files, err := syntax(t.PkgPath())
	if err != nil {
		return nil, err
	}
	says := map[string]string{}
	for _, f := range files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				ts, ok := spec.(*ast.TypeSpec)
				if !ok || ts.Name.Name != t.Name() {
					continue
				}
				if st, ok := ts.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						for _, name := range field.Names {
							says[name.Name] = prose(field.Doc.Text())
						}
					}
				}
			}
		}
	}
	return says, nil
}

// prose drops the lines that speak to tools.
func prose(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "+") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " ")
}

func syntax(path string) ([]*ast.File, error) {
	if files, ok := packages[path]; ok {
		return files, nil
	}
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}{{range .GoFiles}}\n{{.}}{{end}}", path).Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", path, err)
	}
	names := strings.Split(strings.TrimSpace(string(out)), "\n")
	var files []*ast.File
	for _, name := range names[1:] {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(names[0], name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	packages[path] = files
	return files, nil
}
