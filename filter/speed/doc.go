// Package speed measures how fast postern decides and keeps what it measured:
// results that can be saved, compared with earlier ones, and shown as one page with
// plots.
//
// Decide measures in memory: the decoder, the engine and the table of flows on
// packets that lie ready. What is measured in the kernel comes from elsewhere as
// Rows. Times are processor time of the thread where it is said so, so that what
// else the machine does costs less; latencies are by the clock and include it.
package speed
