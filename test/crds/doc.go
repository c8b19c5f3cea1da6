// Package crds tests the definitions in deploy/crds against a real API server.
package crds
