// Package proxy is a stand-in for Envoy in front of a pod, for tests: no Envoy can be
// had where they run. It ends mutual TLS or takes plain text, speaks HTTP/1.1, HTTP/2
// and plain TCP, asks about each request or connection over gRPC, and forwards what is
// allowed to a backend.
//
// CheckRequests are filled as Envoy documents in attribute_context.proto and
// external_auth.proto: both addresses, both principals (the first URI of the
// certificate, or its first DNS name, or its subject), id, method, path with query,
// host, scheme, protocol, size, all headers by name in small letters, those that are
// there twice joined by a comma and what is not UTF-8 replaced, pseudo-headers
// among them, and by setting the peer's certificate, the server name, the body, context
// extensions and metadata. A gRPC error or a timeout is for the failure mode, and
// every status but OK denies.
//
// On purpose it is more careless than Envoy with HTTP/1.1: targets go to the server
// that is asked, and to the backend, as the client wrote them, where Envoy may be told to
// normalise them. What it does not have:
// other filters, routes, retries, header mutations, and Envoy's bugs.
package proxy
