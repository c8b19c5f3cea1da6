// Package control lets the command line ask a running daemon what it enforces.
//
// The daemon listens on a Unix socket and speaks HTTP with JSON on it. The socket
// belongs to the daemon's user and group and nobody else may open it; besides, the
// peer's credentials are checked, so that a socket in a careless directory opens
// nothing. Requests read state that is published by pointers, never wait for the
// verdict loop, and are bounded in number, size and time.
package control
