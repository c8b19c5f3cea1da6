package authz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/postern-project/postern/filter"
)

// TestGRPCErrors: what is no CheckRequest within bounds gets a gRPC error, at once, and
// is counted; nothing of the kind is an allow, and the connection goes on.
func TestGRPCErrors(t *testing.T) {
	s, path := serve(t, engineOf(compiled(t, 1, world+policyAPI)), Config{})
	c := connect(t, path)
	client := authv3.NewAuthorizationClient(c)
	const service = "/envoy.service.auth.v3.Authorization/"
	long := get("/health")
	long.Attributes.Request.Http.RawBody = make([]byte, maxReceived)
	streams := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	twice := func() error {
		st, err := c.NewStream(t.Context(), streams, service+"Check")
		if err != nil {
			return err
		}
		if err := st.SendMsg(get("/health")); err != nil {
			return err
		}
		if err := st.SendMsg(get("/health")); err != nil && err != io.EOF {
			return err
		}
		st.CloseSend()
		return st.RecvMsg(&authv3.CheckResponse{})
	}
	never := func() error {
		st, err := c.NewStream(t.Context(), streams, service+"Check")
		if err != nil {
			return err
		}
		st.CloseSend()
		return st.RecvMsg(&authv3.CheckResponse{})
	}
	out := &authv3.CheckResponse{}
	for name, of := range map[string]struct {
		err  error
		code codes.Code
	}{
		"a message that is too long": {invoke(client, long), codes.ResourceExhausted},
		"compression":                {compressed(t, path), codes.Unimplemented},
		"an unknown method":          {c.Invoke(t.Context(), service+"Allow", get("/health"), out), codes.Unimplemented},
		"an unknown service":         {c.Invoke(t.Context(), "/envoy.service.auth.v2.Authorization/Check", get("/health"), out), codes.Unimplemented},
		"reflection":                 {c.Invoke(t.Context(), "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", get("/health"), out), codes.Unimplemented},
		"two messages":               {twice(), codes.Internal},
		"no message":                 {never(), codes.Internal},
	} {
		if status.Code(of.err) != of.code {
			t.Errorf("%s: %v, want %s", name, of.err, of.code)
		}
		if err := invoke(client, get("/health")); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	if n := s.Stats().Unread.Load(); n != 3 {
		t.Errorf("%d checks counted as not read, want 3: too long, two and none; what is compressed in an unknown way does not come so far", n)
	}
	if s.Stats().Total(filter.Drop) != 0 || s.Stats().Total(filter.Accept) != 7 {
		t.Errorf("%d denied and %d allowed", s.Stats().Total(filter.Drop), s.Stats().Total(filter.Accept))
	}
}

func invoke(c authv3.AuthorizationClient, r *authv3.CheckRequest) error {
	_, err := c.Check(context.Background(), r)
	return err
}

// compressed sends a message that says it is compressed, in a way that nobody knows.
func compressed(t *testing.T, path string) error {
	w := newWire(t, path, "grpc-encoding", "snappy")
	w.open(1)
	w.WriteData(1, true, []byte{1, 0, 0, 0, 3, 1, 2, 3})
	f, err := w.until(func(f http2.Frame) bool { h, ok := f.(*http2.HeadersFrame); return ok && h.StreamEnded() })
	if err != nil {
		return err
	}
	code := "none"
	d := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			code = f.Value
		}
	})
	if _, err := d.Write(f.(*http2.HeadersFrame).HeaderBlockFragment()); err != nil {
		return err
	}
	n, err := strconv.Atoi(code)
	if err != nil {
		return err
	}
	return status.Error(codes.Code(n), "by hand")
}

// wire is a client that speaks HTTP/2 by hand, and as badly as a test wants.
type wire struct {
	*testing.T
	net.Conn
	*http2.Framer
	block []byte
}

func newWire(t *testing.T, path string, header ...string) *wire {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for range 2 { // the first begins with the size of the table
		b.Reset()
		all := append([]string{":method", "POST", ":scheme", "http", ":path", authv3.Authorization_Check_FullMethodName, ":authority", "x", "content-type", "application/grpc", "te", "trailers"}, header...)
		for i := 0; i < len(all); i += 2 {
			if err := e.WriteField(hpack.HeaderField{Name: all[i], Value: all[i+1]}); err != nil {
				t.Fatal(err)
			}
		}
	}
	w := &wire{t, c, http2.NewFramer(c, c), b.Bytes()}
	io.WriteString(c, http2.ClientPreface)
	w.WriteSettings()
	return w
}

func (w *wire) open(stream uint32) error {
	return w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.block, EndHeaders: true})
}

// until reads frames until one is what is wanted, and gives it, or the error that ends
// the connection.
func (w *wire) until(wanted func(http2.Frame) bool) (http2.Frame, error) {
	for {
		f, err := w.ReadFrame()
		if err != nil || wanted(f) {
			return f, err
		}
	}
}

// errAnswer is of an answer that must not have come.
var errAnswer = errors.New("answered")

// TestAbuse: a client that misbehaves loses its stream or its connection, others are
// answered beside it, and the packet path notices nothing.
func TestAbuse(t *testing.T) {
	rs := compiled(t, 1, world+policyAPI)
	engine := engineOf(rs)
	s, err := New(engine, Config{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, l)
	client := dial(t, path)
	frame := func(message []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	}
	good, err := proto.Marshal(get("/health"))
	if err != nil {
		t.Fatal(err)
	}
	ended := func(id uint32) func(http2.Frame) bool {
		return func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.HeadersFrame:
				return f.StreamID == id && f.StreamEnded()
			case *http2.RSTStreamFrame:
				return f.StreamID == id
			case *http2.GoAwayFrame:
				return true
			}
			return false
		}
	}
	for name, abuse := range map[string]func(*wire) error{
		"a slow client, byte by byte": func(w *wire) error {
			w.open(1)
			b := frame(good)
			for i := range b {
				if err := w.WriteData(1, i == len(b)-1, b[i:i+1]); err != nil {
					return err
				}
			}
			f, err := w.until(ended(1))
			if h, ok := f.(*http2.HeadersFrame); err == nil && (!ok || !h.StreamEnded()) {
				return fmt.Errorf("%w: %v", errAnswer, f)
			}
			return err // slow, and answered
		},
		"a check that never comes whole": func(w *wire) error {
			w.open(1)
			w.WriteData(1, false, frame(good)[:20])
			_, err := w.until(ended(1)) // after checkTimeout
			return err
		},
		"more streams than allowed": func(w *wire) error {
			for i := range uint32(maxStreams + 10) {
				w.open(2*i + 1)
			}
			f, err := w.until(func(f http2.Frame) bool { _, ok := f.(*http2.RSTStreamFrame); return ok })
			if err == nil && f.(*http2.RSTStreamFrame).ErrCode != http2.ErrCodeRefusedStream {
				return fmt.Errorf("%w: %v", errAnswer, f)
			}
			return err
		},
		"streams reset as soon as they are open": func(w *wire) error {
			for i := range uint32(5000) {
				if err := w.open(2*i + 1); err != nil {
					return nil // ended
				}
				if err := w.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
					return nil
				}
			}
			return nil
		},
		"headers without end": func(w *wire) error {
			w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.block})
			for {
				var b bytes.Buffer
				hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: "x", Value: string(make([]byte, 4000)), Sensitive: true})
				if err := w.WriteContinuation(1, false, b.Bytes()); err != nil {
					return nil // ended, as it must be
				}
			}
		},
		"more than the window": func(w *wire) error {
			w.open(1)
			for range window/16384 + 64 {
				if err := w.WriteData(1, false, append([]byte{0, 0, 15, 0, 0}, make([]byte, 16000)...)); err != nil {
					return nil
				}
			}
			_, err := w.until(ended(1))
			return err
		},
		"pings": func(w *wire) error {
			for range 1000 {
				if err := w.WritePing(false, [8]byte{}); err != nil {
					return nil
				}
			}
			_, err := w.until(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok })
			return err
		},
		"no answer is taken": func(w *wire) error {
			for i := range uint32(200) {
				if w.open(2*i+1) != nil || w.WriteData(2*i+1, true, frame(good)) != nil {
					break
				}
			}
			return nil // and nothing read
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, path)
			done := make(chan error, 1)
			go func() { done <- abuse(w) }()
			for {
				within, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				got, err := client.Check(within, get("/health"))
				cancel()
				if err != nil || got.Status.Code != int32(codes.OK) {
					t.Fatalf("others: %v, %v", got, err)
				}
				select {
				case err := <-done:
					var timeout net.Error
					if errors.Is(err, errAnswer) || errors.As(err, &timeout) && timeout.Timeout() {
						t.Error(err) // the server let it be
					}
					return
				default:
				}
			}
		})
	}
	if engine.Ruleset() != rs {
		t.Error("what the packet path decides by was changed")
	}
}
