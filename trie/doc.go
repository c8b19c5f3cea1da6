// Package trie holds the tables that addresses and names are looked up in.
//
// Table answers, for one packet, which value the longest matching prefix of an
// address has. Single addresses (/32, /128), of which a cluster has a hundred
// thousand, live in a hash table and cost one cache line however they are
// spread, and those of IPv4 that lie dense in an array for their /16; shorter prefixes live in a trie of a 16-bit root and 8-bit strides
// below it. One bit in each root word says whether the /16 (IPv4) or the first
// 16 bits (IPv6) hold any single address, so that all others skip the hash.
//
// # Synchronisation
//
// One goroutine writes; any number read, without a lock. Three rules make that
// safe:
//
//   - Words that change after publication (root words, hash slots, the pointers
//     to the tables) are loaded and stored with sync/atomic. A value and its key
//     are either one word, or the key never changes once the value is visible.
//   - A block below the root never changes once a root word leads to it. A change
//     writes new blocks and then stores the root word. Replaced blocks are not
//     reused: when they pass half the live ones, everything is copied and one
//     pointer is stored, and the garbage collector frees the old image when the
//     last reader has left it.
//   - A reader that misses in the hash after it read the root has read two words
//     at two moments. It looks at a count of finished prefix changes, and of moves
//     from the hash to an array, again and starts over if one came between; the
//     answer was therefore right at some moment during the call.
//
// A View is the table as it was at one moment. After one was taken, a change
// copies what it would alter in place: the root, or the page of the hash or array. So a
// View never changes and a reader of one meets none of the above.
//
// Names is an index of strings by prefix for the control plane, and Covers walks
// the prefixes that cover each prefix of a list.
package trie
