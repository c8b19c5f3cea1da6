// Package keeper supervises one process the way systemd would, where there is no
// systemd: in a container, or on a plain shell.
//
// It is small on purpose, so that nothing in it can fail: it reads no policy and no
// packet. It starts the process again when it ends unasked, hands it the
// descriptors that the one before left behind, and ends it when it stops reporting
// that it is alive. The process cannot tell it from systemd (sd_notify(3): NOTIFY_SOCKET,
// READY, WATCHDOG, FDSTORE, FDSTOREREMOVE; sd_listen_fds(3)).
//
// Descriptors are kept for a bounded time while no process is ready. Then they are
// closed, and with them goes what waited for an answer.
package keeper
