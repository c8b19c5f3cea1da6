package lab

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// Forwarder carries connections from a host to the caller's own network.
type Forwarder struct {
	l     net.Listener
	mu    sync.Mutex
	conns map[net.Conn]bool
	done  sync.WaitGroup
}

// Forward listens at a TCP address on the host and carries what connects there to
// the same address in the caller's network namespace.
func (h *Host) Forward(address string) (*Forwarder, error) { return h.ForwardTo(address, address) }

// ForwardTo listens at one TCP address on the host, and carries to another.
func (h *Host) ForwardTo(address, to string) (*Forwarder, error) {
	f := &Forwarder{conns: map[net.Conn]bool{}}
	if err := h.Do(func() (err error) { f.l, err = net.Listen("tcp", address); return err }); err != nil {
		return nil, fmt.Errorf("lab: forward: %w", err)
	}
	f.done.Go(func() {
		for {
			in, err := f.l.Accept()
			if err != nil {
				return
			}
			f.done.Go(func() { f.carry(in, to) })
		}
	})
	return f, nil
}

func (f *Forwarder) carry(in net.Conn, address string) {
	defer in.Close()
	out, err := net.Dial("tcp", address)
	if err != nil {
		return // as if it had been refused
	}
	defer out.Close()
	if !f.add(in, out) {
		return
	}
	defer f.remove(in, out)
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// add is false if the forwarder is closed.
func (f *Forwarder) add(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		if f.conns == nil {
			return false
		}
		f.conns[c] = true
	}
	return true
}

func (f *Forwarder) remove(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

// Close stops listening and cuts what is connected.
func (f *Forwarder) Close() error {
	err := f.l.Close()
	f.mu.Lock()
	for c := range f.conns {
		c.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.done.Wait()
	return err
}
