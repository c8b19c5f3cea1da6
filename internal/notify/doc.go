// Package notify speaks with whoever supervises the process, in the words of
// sd_notify(3): systemd, or a keeper of our own that answers to the same protocol.
//
// The process says when it is ready, that it is alive, and leaves copies of
// descriptors in the supervisor's store. They outlive it, and the process that takes
// its place is given them (systemd.io, "File Descriptor Store"; sd_listen_fds(3)).
package notify
