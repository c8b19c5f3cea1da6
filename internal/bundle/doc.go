// Package bundle makes support archives: a gzipped tar of texts from which secrets
// were taken. What is written goes through Redact, whoever wrote it, so that a token
// which some library put into an error does not leave the host.
package bundle
