package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/hostlink"
	"github.com/postern-project/postern/filter/nft"
)

// sourcesConfig is what run's flags say about forged source addresses.
type sourcesConfig struct {
	antiSpoof string
	exempt    []string
}

var antiSpoofChoices = map[string]nft.SourceCheck{"enforce": nft.SourcesDropped, "count": nft.SourcesCounted, "off": nft.SourcesIgnored}

func (c *sourcesConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.antiSpoof, "anti-spoof", "enforce", "what becomes of packets whose source address is not the sender's: enforce drops them, count lets them pass, off does not look")
	f.StringArrayVar(&c.exempt, "anti-spoof-exempt", nil, "prefix of source addresses that are not checked (may be repeated)")
}

func (c *sourcesConfig) check() error {
	if _, ok := antiSpoofChoices[c.antiSpoof]; !ok {
		return usageError("--anti-spoof %q: want enforce, count or off", c.antiSpoof)
	}
	_, err := c.exemptPrefixes()
	return err
}

func (c *sourcesConfig) exemptPrefixes() (ps []netip.Prefix, err error) {
	for _, text := range c.exempt {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, usageError("--anti-spoof-exempt %q: want a prefix, such as 10.0.0.0/24", text)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// openSources prepares the check of source addresses. It has a connection of its own,
// since it is at work beside the loop that applies policy.
func (d *daemon) openSources() error {
	exempt, err := d.cfg.sources.exemptPrefixes()
	if err != nil {
		return err
	}
	c, err := nft.Dial()
	if err != nil {
		return err
	}
	d.sourcesConn = c
	sources := nft.NewSources(c, antiSpoofChoices[d.cfg.sources.antiSpoof], exempt)
	d.links = hostlink.New(func(links []int) error {
		if err := sources.Apply(links); err != nil {
			return err
		}
		d.podLinks.Store(&links)
		d.log.Info().Str("anti_spoof", d.cfg.sources.antiSpoof).Ints("links", links).Msg("checking source addresses")
		return nil
	})
	return nil
}

// bridged tells the status of pods that reach each other past the rules.
func (d *daemon) bridged() []string {
	links := d.podLinks.Load()
	if links == nil {
		return nil
	}
	bridges, settings, err := hostlink.Unseen(*links)
	switch {
	case err != nil:
		return []string{"whether bridges show packets to the rules could not be read: " + err.Error()}
	case len(bridges) > 0:
		return []string{fmt.Sprintf("pods on the bridge %s reach each other past all rules, since %s is not 1: modprobe br_netfilter; sysctl -w %s=1",
			strings.Join(bridges, ", "), strings.Join(settings, " and "), strings.Join(settings, "=1 "))}
	}
	return nil
}

func (d *daemon) checkSources(ctx context.Context) error {
	return d.links.Run(ctx, func(err error) {
		d.log.Error().Err(fmt.Errorf("source addresses: %w", err)).Msg("could not bind source addresses to links")
	})
}
