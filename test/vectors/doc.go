// Package vectors reads the project's conformance vectors and runs them through
// the production path: the objects of a case become API objects in text, which
// the file source parses, the store merges, and both the compiled engine and the
// literal explainer decide the case's flows on.
//
// A vector is a small cluster, some policies and the verdicts they must give.
// The format is described in README.md beside this file. Load reads a file of
// it, Run checks one vector and returns what is wrong; the package's test does
// so for everything under testdata, or for the files named by -file.
//
// Nothing here is skipped: text that does not parse, a name that no object has
// and a question that a layer cannot answer are failures of the vector.
package vectors
