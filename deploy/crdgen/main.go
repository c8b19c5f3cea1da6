// Command crdgen writes the definitions of Calico's kinds that postern ships for
// clusters without Calico: the CustomResourceDefinitions in deploy/crds.
//
//	go run ./deploy/crdgen deploy/crds
//
// A schema is read off the Go type that k8ssync/convert converts: every field that
// the type has, with its comment. constraints.go adds what the type does not say
// and convert demands. What a schema can express the API server refuses at once,
// beside the author; the rest is refused by convert on the node, which fails closed
// and says so. Which is which is checked against a real API server in test/crds.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crdgen DIRECTORY")
		os.Exit(2)
	}
	files, err := generate()
	for name, text := range files {
		if err == nil {
			err = os.WriteFile(filepath.Join(os.Args[1], name), text, 0o644)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crdgen:", err)
		os.Exit(1)
	}
}

const header = "# Written by deploy/crdgen. Do not edit; run: go run ./deploy/crdgen deploy/crds\n"

// generate gives the files of the directory, by name.
func generate() (map[string][]byte, error) {
	files := map[string][]byte{}
	list := map[string]any{"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
	var resources []string
	for _, k := range kinds {
		definition, err := k.definition()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.kind(), err)
		}
		text, err := yaml.Marshal(definition)
		if err != nil {
			return nil, err
		}
		name := group + "_" + k.plural + ".yaml"
		files[name] = append([]byte(header), text...)
		resources = append(resources, name)
	}
	list["resources"] = resources
	text, err := yaml.Marshal(list)
	files["kustomization.yaml"] = append([]byte(header), text...)
	return files, err
}
