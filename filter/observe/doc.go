// Package observe shows decisions, as they are taken, to those who watch.
//
// The flow log's Writer tells a Feed of every decision. The Feed keeps the last ones,
// denied and accepted ones apart, so that a busy host's accepted flows do not push out
// the denial that somebody asks about a minute later. It hands events to Watches, each
// with a filter and a bounded buffer of its own. Telling never waits: what finds no
// room is counted, and the watcher is told how much he missed. So the slowest client
// costs itself events, and nobody else anything; and on the packet path nothing
// happens for watching at all.
package observe
