package main

import (
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
)

// kernelConfig is what the flags of run say of flows and of the queue.
type kernelConfig struct {
	established                      string
	podCIDRs                         []string
	podPrefixes                      []netip.Prefix // of podCIDRs, once checked, or of the node's object
	holdTime                         time.Duration
	holds, holdsOf                   int
	cacheSize                        uint32
	cacheAtStop                      string
	guard, guardPortless, guardKnown uint32
	accounting                       bool
}

func addKernelFlags(f *pflag.FlagSet, c *kernelConfig) {
	f.StringVar(&c.established, "established-flows", "revoke", "what becomes of accepted flows that a later change denies: revoke stops them at their next packet, keep lets them go on until they end")
	f.StringArrayVar(&c.podCIDRs, "pod-cidr", nil, "prefix from which pods of this host have their addresses (may be repeated), or none: the first packets of an address whose pod is not known yet are held; by default, with --kubeconfig, spec.podCIDRs of this node")
	f.DurationVar(&c.holdTime, "hold-time", nfq.DefaultHoldTime, "how long a packet is held for its pod; then it is dropped")
	f.IntVar(&c.holds, "holds", nfq.DefaultHolds, "packets that each queue holds at most; what is over is dropped")
	f.IntVar(&c.holdsOf, "holds-per-source", nfq.DefaultHoldsOf, "packets of one source that each queue holds at most")
	f.Uint32Var(&c.cacheSize, "verdict-cache", nft.DefaultCacheSize, "decisions that the kernel remembers at most, for each family, accepted and denied ones apart")
	f.StringVar(&c.cacheAtStop, "verdict-cache-at-stop", "auto", "what becomes of them on a normal end: forget, so that no new flow of a protected pod passes without postern; keep, so that repeated ones pass for up to a minute; auto keeps them only where a supervisor keeps the queues for the next process")
	f.Uint32Var(&c.guard, "guard-rate", nft.DefaultGuard, "new flows that one source may ask about in a second; what is over is dropped; 0 for no limit")
	f.Uint32Var(&c.guardPortless, "guard-portless-rate", nft.DefaultGuardPortless, "the same for protocols without ports, such as ICMP")
	f.BoolVar(&c.accounting, "conntrack-accounting", false, "have the kernel count packets and bytes of every flow of this host and note its times (sysctls net.netfilter.nf_conntrack_acct and nf_conntrack_timestamp); it stays on")
	f.Uint32Var(&c.guardKnown, "guard-known-rate", nft.DefaultGuardKnown, "packets of known flows that one source may have judged again in a second, after a change of policy; 0 for no limit")
}

// check refuses what makes no sense, and reads the prefixes.
func (c *kernelConfig) check() error {
	switch {
	case c.established != "revoke" && c.established != "keep":
		return usageError("--established-flows %q: want revoke or keep", c.established)
	case c.cacheAtStop != "auto" && c.cacheAtStop != "forget" && c.cacheAtStop != "keep":
		return usageError("--verdict-cache-at-stop %q: want auto, forget or keep", c.cacheAtStop)
	case c.holdTime <= 0 || c.holdTime > time.Minute:
		return usageError("--hold-time %v: want more than 0 and at most 1m", c.holdTime)
	case c.holds < 1 || c.holds > 1<<16:
		return usageError("--holds %d: want 1 to 65536", c.holds)
	case c.holdsOf < 1:
		return usageError("--holds-per-source %d: want 1 or more", c.holdsOf)
	case c.cacheSize < 1 || c.cacheSize > 1<<22:
		return usageError("--verdict-cache %d: want 1 to 4194304", c.cacheSize)
	}
	c.podPrefixes = nil
	if len(c.podCIDRs) == 1 && c.podCIDRs[0] == "none" {
		return nil
	}
	for _, text := range c.podCIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return usageError("--pod-cidr %q: want a prefix such as 10.244.1.0/24, or none alone", text)
		}
		c.podPrefixes = append(c.podPrefixes, p.Masked())
	}
	return nil
}
