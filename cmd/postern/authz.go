package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/filter/flowlog"
)

// authzConfig is what the flags of run say about answering proxies.
type authzConfig struct {
	socket       string
	group        int
	listen       string
	files        authz.TLSFiles
	trustDomains []string
	plaintext    string
	mismatch     string
}

func (c *authzConfig) register(f *pflag.FlagSet) {
	f.StringVar(&c.socket, "authz-socket", "", "Unix socket on which Envoy may ask about requests, such as "+authz.DefaultSocket+"; empty for none")
	f.IntVar(&c.group, "authz-socket-group", -1, "id of a group whose processes may ask too, besides root and this process's own user and group; 1337 is Istio's proxy")
	f.StringVar(&c.listen, "authz-listen", "", "TCP address on which Envoy may ask, with mutual TLS; empty for none")
	f.StringVar(&c.files.Certificate, "authz-cert", "", "with --authz-listen: PEM file of the certificate to show, an X.509-SVID")
	f.StringVar(&c.files.Key, "authz-key", "", "with --authz-listen: PEM file of its key")
	f.StringVar(&c.files.ClientCA, "authz-client-ca", "", "with --authz-listen: PEM file of the authorities of clients' certificates")
	f.StringArrayVar(&c.files.Clients, "authz-client", nil, "with --authz-listen: SPIFFE ID of a client that may ask (may be repeated)")
	f.StringArrayVar(&c.trustDomains, "authz-trust-domain", nil, "trust domain whose certificates count, such as cluster.local (may be repeated; required, for anybody can make a trust domain)")
	f.StringVar(&c.plaintext, "authz-plaintext", "address-only", "requests without a certificate: address-only lets the address decide, deny denies")
	f.StringVar(&c.mismatch, "authz-identity-mismatch", "deny", "requests whose certificate and address name different service accounts: deny, or rules to let each rule judge both")
}

// check refuses what makes no sense, naming the flag.
func (c *authzConfig) check() error {
	if err := c.checkChoices(); err != nil {
		return err
	}
	switch {
	case c.group < -1:
		return usageError("--authz-socket-group %d: want the number of a group", c.group)
	case c.socket == "" && c.group >= 0:
		return usageError("--authz-socket-group: there is no --authz-socket")
	case c.socket == "" && c.listen == "":
		if len(c.trustDomains) > 0 {
			return usageError("--authz-trust-domain: there is no --authz-socket and no --authz-listen")
		}
		return nil
	case len(c.trustDomains) == 0:
		return usageError("--authz-trust-domain is required with --authz-socket and --authz-listen: the trust domain of your mesh, cluster.local unless changed")
	case c.listen != "" && (c.files.Certificate == "" || c.files.Key == "" || c.files.ClientCA == "" || len(c.files.Clients) == 0):
		return usageError("--authz-listen: --authz-cert, --authz-key, --authz-client-ca and --authz-client are required with it")
	}
	return nil
}

func (c *authzConfig) checkChoices() error {
	switch {
	case c.plaintext != "address-only" && c.plaintext != "deny":
		return usageError("--authz-plaintext %q: want address-only or deny", c.plaintext)
	case c.mismatch != "deny" && c.mismatch != "rules":
		return usageError("--authz-identity-mismatch %q: want deny or rules", c.mismatch)
	}
	return nil
}

func (c *authzConfig) requestOptions() filter.RequestOptions {
	return filter.RequestOptions{RefusePlaintext: c.plaintext == "deny", MismatchToRules: c.mismatch == "rules"}
}

// authzServer answers proxies on one or two listeners.
type authzServer struct {
	*authz.Server
	listeners []*authz.Listener
}

// openAuthz begins to listen. It gives nil if nobody is to be answered.
func (d *daemon) openAuthz() (err error) {
	c := &d.cfg.authz
	if c.socket == "" && c.listen == "" {
		return nil
	}
	ring := flowlog.NewRing(ringSize)
	s := &authzServer{}
	if s.Server, err = authz.New(d.engine, authz.Config{
		TrustDomains: c.trustDomains, Ring: ring,
		Options: c.requestOptions(),
		Log: func(panicked any, stack []byte) {
			d.log.Error().Interface("panic", panicked).Bytes("stack", stack).Msg("a request was denied because postern failed: please report this as a bug")
		},
	}); err != nil {
		return fmt.Errorf("--authz-trust-domain: %w", err)
	}
	d.rings = append(d.rings, ring)
	if c.socket != "" {
		l, err := authz.ListenUnix(c.socket, c.group)
		if err != nil {
			return fmt.Errorf("--authz-socket: %w", err)
		}
		s.listeners = append(s.listeners, l)
	}
	if c.listen != "" {
		l, err := authz.ListenTCP(c.listen, c.files)
		if err != nil {
			return errors.Join(fmt.Errorf("--authz-listen: %w", err), s.close())
		}
		s.listeners = append(s.listeners, l)
	}
	d.authz = s
	return nil
}

// run answers until ctx ends.
func (s *authzServer) run(ctx context.Context) error {
	var tasks errgroup.Group
	for _, l := range s.listeners {
		tasks.Go(func() error { return s.Serve(ctx, l) })
	}
	return tasks.Wait()
}

func (s *authzServer) close() (err error) {
	for _, l := range s.listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

// logAuthz says what became of the requests.
func (d *daemon) logAuthz() {
	if d.authz == nil {
		return
	}
	st := d.authz.Stats()
	d.log.Info().Uint64("allowed", st.Total(filter.Accept)).Uint64("denied", st.Total(filter.Drop)).Uint64("unread", st.Unread.Load()).Uint64("panics", st.Panics.Load()).
		Msg("requests answered")
}
