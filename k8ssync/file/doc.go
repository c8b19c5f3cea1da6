// Package file is the source that reads objects from manifests: Parse reads one
// text, as lint does, and Source keeps a Store at the state of a directory.
//
// A manifest is what kubectl takes: YAML or JSON, several documents in one file,
// lists. Kinds that no decision depends on are skipped and counted. Policies are
// read strictly, since a misspelt criterion would otherwise be none.
//
// The directory is the state: whatever its files hold together is applied at
// once, after the files have been quiet for a moment. A file that cannot be read
// or parsed counts with the objects it held last, so an editor's half-written
// file opens nothing. Write a new file aside and rename it to avoid even that:
// half a manifest may well be a valid one.
package file
