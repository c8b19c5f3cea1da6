// Package diff tells which flows a change of policy allows or denies: it compares
// two policy.Snapshots by verdict, not by text.
//
// The answer is exhaustive, because what is compared is finite. Pods that no rule
// of either side can tell apart are one identity; addresses that are no pod's fall
// into regions that every prefix, set and service of both sides treats alike; and
// protocols, ports and ICMP types are cut wherever a rule of either side has a
// boundary. One flow stands for each identity pair and cell of traffic. Both
// compiled engines decide it, and what differs is decided again by package
// explain, which shares no code with them.
//
// With n identities and regions and c cells, at most 2·n²·c decisions are taken.
// Pairs are left out if nothing about either end differs and no policy that
// differs applies to the sender's egress or the receiver's ingress: their verdicts
// cannot differ. So a change of one policy costs n times the identities it selects.
//
// Verdicts are those of the whole cluster: every pod is decided for at both ends,
// and ports are taken to be read. Host endpoints are peers only.
package diff
