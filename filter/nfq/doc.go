// Package nfq takes packets from a netfilter queue, has them decided, and answers.
//
// A Queue is one socket that owns one queue number. Its loop is one goroutine on
// one OS thread: receive a batch of messages (recvmmsg), decode each packet where
// it lies, decide, append a verdict message, and send all verdicts of the batch
// at once. There is no channel, no lock and no allocation in it, and nothing is
// logged: counters are read by others and decisions go to a ring.
//
// Every packet id gets exactly one verdict. What cannot be decoded is dropped and
// counted by cause. The kernel's FAIL_OPEN flag is never set: with it the kernel
// accepts, unseen and uncounted, what does not fit into the queue.
//
// A decided packet is answered with NF_REPEAT and a mark that says what was decided
// and in which epoch, so that it meets the rules once more and they can remember it
// (package nft). What cannot be decided is answered with NF_DROP.
//
// A packet of an address whose pod is not known yet is held: it stays in the kernel,
// and its id here, for a bounded time.
//
// A queue belongs to its socket and not to a process: Adopt goes on with one that
// another process left with its supervisor.
//
// The socket is go-nfqueue's; its receive and verdict paths allocate a score of
// times per packet each, so the loop works on the descriptor itself. Messages
// follow uapi linux/netfilter/nfnetlink_queue.h.
package nfq
