// Package authz answers Envoy's external authorization: a proxy in front of a pod
// asks about each HTTP request, or each TCP connection, and gets the decision that
// the ruleset in force takes on it, by the address and by the certificate of who
// asks for it (spec section 9).
//
//	proxy ──gRPC──▶ unix socket, or TCP with mutual TLS
//	                  │ codec: the fields that are read, out of the message; never fails
//	                  ▼
//	                read: addresses, principals ──▶ filter.Request, or what is wrong
//	                  ▼
//	                Engine.DecideRequest: one ruleset, one generation
//	                  │ Outcome ─▶ counter, ring ─▶ flow log
//	                  ▼
//	                answer: CheckResponse, kept by outcome for the ruleset in force
//
// Whatever the message says, the answer is a CheckResponse that allows or denies: a
// gRPC error would leave it to the proxy's configuration what to do. What cannot be
// understood is denied with INVALID_ARGUMENT, and where no ruleset is in force with
// INTERNAL; a message longer than MaxMessage is denied without being read. What gets a
// gRPC error is no whole message, or one that is longer than any proxy makes.
//
// No header is read, so none can forge anything, x-forwarded-client-cert included:
// identities come from the fields in which the proxy itself reports the TLS
// connection. Who may ask is for the socket to say, by its mode and the peer's
// credentials, or the client's certificate. Clients are bounded in connections,
// streams, bytes and time. The packet path shares nothing with them but the
// engine's pointer, which both only load.
package authz
