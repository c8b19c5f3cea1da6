package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netns"
)

// Enter gives the host whose network namespace a process is in. The namespace is
// somebody else's; Leave gives up the hold on it.
func Enter(name string, pid int, addrs ...netip.Addr) (*Host, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("lab: %s: namespace of process %d: %w", name, pid, err)
	}
	return &Host{Name: name, Addrs: addrs, ns: ns}, nil
}

// Leave is for hosts that Enter gave.
func (h *Host) Leave() error { return h.ns.Close() }

// Path is where other programs find the namespace of a host of this lab.
func (l *Lab) Path(h *Host) string { return filepath.Join(namespaceDir, l.name+h.Name) }
