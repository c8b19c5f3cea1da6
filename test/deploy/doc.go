// Package deploy tests what is in deploy against a real API server: that manifests
// are valid, that postern's own rights suffice and are no more than it needs, and
// that the guards keep each user to what they may do.
package deploy
