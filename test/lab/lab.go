package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The node's address on every pod's link. Link-local ones, so that they can be
// the same on all.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Addresses of the node itself.
var (
	NodeAddr4 = netip.MustParseAddr("192.168.77.1")
	NodeAddr6 = netip.MustParseAddr("fd00:77::1")
)

const namespaceDir = "/run/netns"

// prefix begins the name of every namespace that a lab makes; the process id
// follows, so that what a killed process left behind can be told and removed.
const prefix = "postern-"

// made counts the labs of this process.
var made atomic.Int32

// Lab is a node with pods.
type Lab struct {
	Node  *Host
	hosts []*Host
	name  string
}

// Host is one network namespace.
type Host struct {
	Name  string
	Addrs []netip.Addr
	ns    netns.NsHandle
	// gateway is the hardware address of the node's end of a pod's link.
	gateway net.HardwareAddr
}

// New makes a node without pods. Close removes it.
func New() (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("lab: making network namespaces needs root")
	}
	removeOrphans()
	l := &Lab{name: prefix + strconv.Itoa(os.Getpid()) + "-"}
	if n := made.Add(1); n > 1 { // several labs at once keep apart
		l.name += strconv.Itoa(int(n)) + "-"
	}
	node, err := l.add("node")
	if err != nil {
		return nil, err
	}
	l.Node = node
	node.Addrs = []netip.Addr{NodeAddr4, NodeAddr6}
	err = node.Do(func() error {
		// A bridge without ports holds the node's own addresses.
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "node0"}}); err != nil {
			return fmt.Errorf("add link: %w", err)
		}
		// Source validation would drop the forged packets that tests send, and
		// postern's verdict on them would never be seen.
		if err := sysctl(map[string]string{
			"net/ipv4/ip_forward":              "1",
			"net/ipv6/conf/all/forwarding":     "1",
			"net/ipv4/conf/all/rp_filter":      "0",
			"net/ipv4/conf/default/rp_filter":  "0",
			"net/ipv6/conf/all/accept_dad":     "0",
			"net/ipv6/conf/default/accept_dad": "0",
		}); err != nil {
			return err
		}
		return configure("node0", NodeAddr4, NodeAddr6)
	})
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: node: %w", err)
	}
	return l, nil
}

// AddPod makes a pod with these addresses, of either family.
func (l *Lab) AddPod(name string, addrs ...netip.Addr) (*Host, error) {
	pod, err := l.add(name)
	if err != nil {
		return nil, err
	}
	pod.Addrs = addrs
	if err := l.connect(pod); err != nil {
		return nil, fmt.Errorf("lab: pod %s: %w", name, err)
	}
	return pod, nil
}

func (l *Lab) connect(pod *Host) error {
	link := "v" + strconv.Itoa(len(l.hosts)) // interface names are short
	err := l.Node.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "eth0", PeerNamespace: netlink.NsFd(pod.ns),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add link: %w", err)
		}
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		pod.gateway = l.Attrs().HardwareAddr
		return configure(link, gateway4, gateway6)
	})
	if err != nil {
		return err
	}
	if err := pod.Do(func() error {
		if err := sysctl(map[string]string{"net/ipv6/conf/eth0/accept_dad": "0"}); err != nil {
			return err
		}
		if err := configure("eth0", pod.Addrs...); err != nil {
			return err
		}
		for _, gw := range []netip.Addr{gateway4, gateway6} {
			if err := routeVia("eth0", gw); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return l.Node.Do(func() error {
		for _, a := range pod.Addrs {
			if err := routeTo(link, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// Close removes every namespace of the lab, and with them all that was in them.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.ns.Close(), netns.DeleteNamed(l.name+h.Name))
	}
	l.hosts = nil
	return errors.Join(errs...)
}

func (l *Lab) add(name string) (*Host, error) {
	h := &Host{Name: name}
	err := onThread(func() (err error) {
		h.ns, err = netns.NewNamed(l.name + name)
		if err != nil {
			return fmt.Errorf("make namespace: %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Do runs f on a thread in the host's namespace. Sockets that f opens and
// processes that it starts stay in the namespace. Goroutines that f starts do not
// run there.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter namespace of %s: %w", h.Name, err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which ends with it, since it cannot be
// trusted to be in the process's namespace again.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Addr4 is the host's first IPv4 address.
func (h *Host) Addr4() netip.Addr { return h.first(netip.Addr.Is4) }

// Addr6 is the host's first IPv6 address.
func (h *Host) Addr6() netip.Addr { return h.first(netip.Addr.Is6) }

func (h *Host) first(is func(netip.Addr) bool) netip.Addr {
	for _, a := range h.Addrs {
		if is(a) {
			return a
		}
	}
	return netip.Addr{}
}

func configure(link string, addrs ...netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	for _, a := range addrs {
		bits := a.BitLen()
		if a.Is6() && a.IsLinkLocalUnicast() {
			bits = 64
		}
		nl, err := netlink.ParseAddr(netip.PrefixFrom(a, bits).String())
		if err != nil {
			return err
		}
		if a.Is6() {
			nl.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(l, nl); err != nil {
			return fmt.Errorf("link %s: address %s: %w", link, a, err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s: up: %w", link, err)
	}
	return nil
}

func routeVia(link string, gw netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("default route via %s: %w", gw, err)
	}
	return nil
}

func routeTo(link string, a netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	dst, err := netlink.ParseIPNet(netip.PrefixFrom(a, a.BitLen()).String())
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route to %s: %w", a, err)
	}
	return nil
}

func sysctl(values map[string]string) error {
	for name, v := range values {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(v), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeOrphans removes what labs of processes that are gone left behind.
func removeOrphans() {
	entries, err := os.ReadDir(namespaceDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		rest, ours := strings.CutPrefix(e.Name(), prefix)
		pidText, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(pidText)
		if !ours || err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		netns.DeleteNamed(e.Name())
	}
}
