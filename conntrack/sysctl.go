package conntrack

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Size tells how many entries the calling thread's network namespace has and how many
// there may be; when it is full the kernel drops the packets that would begin a flow.
func Size() (entries, limit int, err error) {
	// ctnetlink's own answer to this question calls itself one of several and is not.
	if entries, err = sysctl("nf_conntrack_count"); err == nil {
		limit, err = sysctl("nf_conntrack_max")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the size of the conntrack table: %w", err)
	}
	return entries, limit, nil
}

// Accounting tells whether flows that begin now in the calling thread's network namespace
// have their packets and bytes counted, and the time of their beginning and end noted. It
// is the host's setting, and both are off by default.
func Accounting() (counted, timed bool, err error) {
	a, err := sysctl("nf_conntrack_acct")
	if err != nil {
		return false, false, fmt.Errorf("read whether conntrack counts: %w", err)
	}
	t, err := sysctl("nf_conntrack_timestamp")
	if os.IsNotExist(err) { // a kernel without CONFIG_NF_CONNTRACK_TIMESTAMP
		t, err = 0, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("read whether conntrack takes times: %w", err)
	}
	return a != 0, t != 0, nil
}

// Events tells whether the kernel reports flows that begin and end in the calling thread's
// network namespace.
func Events() (bool, error) {
	n, err := sysctl("nf_conntrack_events")
	if err != nil {
		return false, fmt.Errorf("read whether conntrack reports: %w", err)
	}
	return n != 0, nil
}

// Account switches both on for flows that begin from then on, those of other programs
// included. It costs some 50 bytes a flow, and an addition a packet.
func Account() error {
	for _, name := range [...]string{"nf_conntrack_acct", "nf_conntrack_timestamp"} {
		err := os.WriteFile(sysctls+name, []byte("1"), 0o644)
		if err != nil && !(os.IsNotExist(err) && name == "nf_conntrack_timestamp") {
			return fmt.Errorf("have conntrack count: %w", err)
		}
	}
	return nil
}

// sysctls are those of the network namespace of the thread that opens them.
const sysctls = "/proc/sys/net/netfilter/"

func sysctl(name string) (int, error) {
	b, err := os.ReadFile(sysctls + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}
