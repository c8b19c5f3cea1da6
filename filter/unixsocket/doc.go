// Package unixsocket listens on Unix sockets for a known few: the socket's mode
// lets in its owner and group only, the peer's credentials are checked besides, so
// that a socket in a careless directory opens nothing, and connections are bounded
// in number.
package unixsocket
