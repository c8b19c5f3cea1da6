package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/internal/settings"
)

// liveKeys are the keys of settings that a running daemon can change. The others hold until
// the next start, which loses no packet.
var liveKeys = []string{"assertions", "flowLog", "flowLogInterval", "flowLogRate", "flowLogSample", "logLevel", "logPrefix", "logRuleRate"}

// lookEvery is how often the file of settings is looked at.
const lookEvery = time.Second

// given are the flags of a command line, which are stronger than what is read again.
type given map[string][]string

func givenFlags(flags *pflag.FlagSet) given {
	g := given{}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			g[f.Name] = list.GetSlice()
		} else {
			g[f.Name] = []string{f.Value.String()}
		}
	})
	return g
}

// load reads the settings anew.
func (g given) load() (c runConfig, err error) {
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	addRunFlags(flags, &c)
	for name, values := range g {
		for _, v := range values {
			if err := flags.Set(name, v); err != nil {
				return c, fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	if err := c.load(flags, g); err != nil {
		return c, err
	}
	return c, c.check()
}

// load sets what flags do not, and remembers where everything comes from.
func (c *runConfig) load(flags *pflag.FlagSet, g given) error {
	s := settings.New(flags)
	if err := s.Load(os.Environ()); err != nil {
		return err
	}
	c.given, c.file, c.byKey = g, flags.Lookup(settings.FileFlag).Value.String(), map[string]string{}
	for _, one := range s.List() {
		c.byKey[one.Key] = one.Value
	}
	return nil
}

// reloads is what became of the settings since the start. Any goroutine may ask.
type reloads struct {
	wanted chan reloaded // for the loop that applies policy

	mu      sync.Mutex
	invalid string   // why the last reload was refused; empty if it was not
	waiting []string // keys that the next start will bring
}

type reloaded struct {
	runConfig
	gate *gatekeeper
}

// degraded tells the status.
func (r *reloads) degraded() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.invalid != "" {
		lines = append(lines, "the settings cannot be reloaded, and those before stay: "+r.invalid)
	}
	if len(r.waiting) > 0 {
		lines = append(lines, "settings that take effect at the next start only have changed: "+strings.Join(r.waiting, ", "))
	}
	return lines
}

// watchSettings reloads at SIGHUP, and when the file of settings changes.
func (d *daemon) watchSettings(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	was := fileState(d.cfg.file)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			was = fileState(d.cfg.file)
			d.reload(ctx, "signal")
		case <-tick.C:
			if now := fileState(d.cfg.file); now != was {
				was = now
				d.reload(ctx, "file changed")
			}
		}
	}
}

// fileState is different after a change of a file, also if it is exchanged for another,
// as ConfigMaps are.
func fileState(path string) string {
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	inode := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size(), inode)
}

func (d *daemon) reload(ctx context.Context, why string) {
	c, err := d.cfg.given.load()
	var gate *gatekeeper
	if err == nil {
		gate, err = newGatekeeper(c.assertions, d.log)
	}
	r := &d.reloads
	r.mu.Lock()
	if err != nil {
		r.invalid = err.Error()
		r.mu.Unlock()
		d.metrics.Reloaded(false)
		d.log.Error().Err(err).Str("why", why).Msg("the settings cannot be reloaded; those before stay")
		return
	}
	r.invalid, r.waiting = "", nil
	for key, v := range c.byKey {
		if v != d.cfg.byKey[key] && !slices.Contains(liveKeys, key) {
			r.waiting = append(r.waiting, key)
		}
	}
	slices.Sort(r.waiting)
	waiting := r.waiting
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return
	case r.wanted <- reloaded{c, gate}:
	}
	d.metrics.Reloaded(true)
	e := d.log.Info().Str("why", why)
	if len(waiting) > 0 {
		e = d.log.Warn().Str("why", why).Strs("at_next_start", waiting)
	}
	e.Msg("reloaded the settings")
}

// adopt takes over what can change. The loop that applies policy calls it.
func (d *daemon) adopt(r reloaded) {
	d.level.set(r.logLevel)
	c := r.flowLogConfig()
	c.Watch = d.watcher()
	d.flows.Configure(c)
	// The new gatekeeper judges what is there afresh: what broke the old assertions may
	// keep the new ones.
	r.gate.opened = d.inForce.Load() != nil
	d.gate = r.gate
}

// level is a log level that can change.
type level struct{ least atomic.Int32 }

// set takes the name of a level, which must have been checked.
func (l *level) set(name string) {
	if lvl, err := zerolog.ParseLevel(name); err == nil {
		l.least.Store(int32(lvl))
	}
}

// Run implements zerolog.Hook.
func (l *level) Run(e *zerolog.Event, at zerolog.Level, _ string) {
	if int32(at) < l.least.Load() {
		e.Discard()
	}
}

// flowLogConfig is what the settings say about the flow log.
func (c *runConfig) flowLogConfig() flowlog.Config {
	return flowlog.Config{
		Which: flowLogChoices[c.flowLog], PerSecond: c.flowLogRate, Interval: c.flowLogInterval, Sample: c.flowLogSample,
		LogRulePerSecond: c.logRuleRate, LogPrefix: c.logPrefix,
	}
}
