package nfq

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// owner is the netlink port id of the socket that owns a queue; 0 if nobody does.
func owner(queue uint16) uint32 {
	s, _, _ := ReadKernelStats(queue)
	return s.PortID
}

// OwnerText names who owns a queue, as far as can be seen from here, in words that follow
// those of the queue; empty if nobody does.
func OwnerText(queue uint16) string {
	id := owner(queue)
	if id == 0 {
		return ""
	}
	if who := processes(inode(id)); len(who) > 0 {
		return ": " + strings.Join(who, ", ")
	}
	return fmt.Sprintf(" (netlink port id %d, as a rule its process id)", id)
}

// inode is that of a netfilter socket in this network namespace; empty if there is none.
// The kernel lists netlink sockets as: address, protocol, port id, and others, the tenth
// of which is the inode.
func inode(port uint32) string {
	f, err := os.Open("/proc/thread-self/net/netlink")
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) >= 10 && fields[1] == strconv.Itoa(unix.NETLINK_NETFILTER) && fields[2] == strconv.Itoa(int(port)) {
			return fields[9]
		}
	}
	return ""
}

// mostNamed bounds how many holders of a socket are named, and longestName how much of a
// command line.
const (
	mostNamed   = 3
	longestName = 100
)

// processes names those that hold a socket, such as "process 7 (postern run)". The first
// process of the system is left out: as a supervisor it only keeps it.
func processes(inode string) (names []string) {
	if inode == "" {
		return nil
	}
	want := "socket:[" + inode + "]"
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		if pid == "1" {
			continue
		}
		fds, _ := filepath.Glob(dir + "/fd/*")
		for _, fd := range fds {
			if at, err := os.Readlink(fd); err == nil && at == want {
				names = append(names, fmt.Sprintf("process %s (%s)", pid, commandLine(dir)))
				break
			}
		}
		if len(names) == mostNamed {
			break
		}
	}
	return names
}

func commandLine(dir string) string {
	b, _ := os.ReadFile(dir + "/cmdline")
	text := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
	text = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
	if len(text) > longestName {
		text = text[:longestName] + "..."
	}
	return text
}
