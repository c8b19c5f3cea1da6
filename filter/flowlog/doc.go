// Package flowlog writes down what was decided.
//
// A verdict loop must not wait for a log, so it puts fixed-size records into a
// Ring of its own and goes on; when the ring is full the record is lost and
// counted. One Writer empties all rings, finds the names of pods, accounts and
// rules in the ruleset that decided, and writes a line each through zerolog.
package flowlog
