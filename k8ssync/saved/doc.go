// Package saved keeps the snapshot in force on disk, so that a node that starts
// without its API server has something to enforce.
//
// A file is lines of text: a header, one line for each object, and an end with the
// number of objects and the SHA-256 of all that is before it. It is written aside,
// synced and renamed, for its owner only. Objects are written one at a time, since
// a snapshot of 100,000 pods is some 40 MB of JSON. Whatever is wrong with a file
// (cut off, changed, of another format, with a field that is not known) makes all
// of it unusable: a part of a policy may be wider than the policy.
package saved
