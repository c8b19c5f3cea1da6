package hostlink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// callTables are the settings by which packets between ports of a bridge pass the tables of IPv4 and
// of IPv6 (kernel Documentation/networking/ip-sysctl, net.bridge). Without br_netfilter there are none.
var callTables = []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"}

// Unseen gives the names of bridges among links whose ports exchange packets past all rules, with
// the settings that let them; none if all is well. A link that is gone is none. A bridge's own
// nf_call_iptables is not looked at.
func Unseen(links []int) (bridges, settings []string, err error) {
	for _, name := range callTables {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("read %s: %w", name, err)
		}
		if strings.TrimSpace(string(value)) != "1" {
			settings = append(settings, strings.ReplaceAll(name, "/", "."))
		}
	}
	if len(settings) == 0 {
		return nil, nil, nil
	}
	for _, index := range links {
		l, err := netlink.LinkByIndex(index)
		var gone netlink.LinkNotFoundError
		switch {
		case errors.As(err, &gone):
		case err != nil:
			return nil, nil, fmt.Errorf("link %d: %w", index, err)
		case l.Type() == "bridge":
			bridges = append(bridges, l.Attrs().Name)
		}
	}
	if len(bridges) == 0 {
		return nil, nil, nil
	}
	return bridges, settings, nil
}
