package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/postern-project/postern/filter/metrics"
)

// listenConfig is what run's flags say about who may look at the daemon over TCP.
type listenConfig struct{ metrics, health string }

func (c *listenConfig) flags(f *pflag.FlagSet) {
	f.StringVar(&c.metrics, "metrics-listen", "", "TCP address on which Prometheus may read /metrics, such as 127.0.0.1:9797; empty for none")
	f.StringVar(&c.health, "health-listen", "", "TCP address of /livez, /readyz and /startupz, such as 127.0.0.1:9797, which may be the same; empty for none")
}

func (c *listenConfig) check() error {
	for flag, address := range map[string]string{"metrics-listen": c.metrics, "health-listen": c.health} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return usageError("--%s %q: want HOST:PORT", flag, address)
		}
	}
	return nil
}

// openMetrics begins to listen. What answers must have been made.
func (d *daemon) openMetrics() error {
	c := &d.cfg.listen
	d.metrics = metrics.New(metrics.Build{Version: version, Revision: strings.Trim(revision(), " ()"), Go: runtime.Version()}, d.status)
	muxes := map[string]*http.ServeMux{}
	mux := func(address string) *http.ServeMux {
		if muxes[address] == nil {
			muxes[address] = http.NewServeMux()
		}
		return muxes[address]
	}
	if c.metrics != "" {
		mux(c.metrics).Handle("GET /metrics", d.metrics.Handler())
	}
	if c.health != "" {
		metrics.Health{Live: d.notLive, Ready: d.notReady, Started: d.notStarted}.Register(mux(c.health))
	}
	for address, handler := range muxes {
		l, err := net.Listen("tcp", address)
		if err != nil {
			flag := "--metrics-listen"
			if address == c.health {
				flag = "--health-listen"
			}
			return fmt.Errorf("%s: %w", flag, err)
		}
		d.web = append(d.web, webListener{l, handler})
	}
	return nil
}

type webListener struct {
	net.Listener
	handler http.Handler
}

// serveWeb answers until ctx ends.
func (d *daemon) serveWeb(ctx context.Context) error {
	var tasks errgroup.Group
	for _, l := range d.web {
		tasks.Go(func() error { return metrics.Serve(ctx, l, l.handler) })
	}
	return tasks.Wait()
}
