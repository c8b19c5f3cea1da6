// Package flowlog writes down what was decided.
//
// A verdict loop must not wait for a log, so it puts fixed-size records into a
// Ring of its own and goes on; when the ring is full the record is lost and
// counted. One Writer empties all rings and makes an Event of each record: it finds
// the names of pods, accounts and rules in the ruleset that decided. Events go to
// whoever watches (Config.Watch), and to the log, a line each through zerolog.
//
// Lines are bounded in number, and memory too. Of denials that are alike the first
// is written at once and the rest counted, one line an interval; of accepted flows
// one of so many is written; and what is over the rate limit is counted. Nothing is
// left out that is not in Stats.
package flowlog
