package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// lean is a gRPC client that costs little, as Envoy's does: one connection, requests
// that were encoded before, and one goroutine. It checks the status of every answer,
// and the whole message of some.
type lean struct {
	conn   net.Conn
	out    *bufio.Writer
	in     *bufio.Reader
	framer *http2.Framer
	block  []byte // the header of every request
	next   uint32 // stream
	window int    // bytes that may be sent
	taken  int    // bytes received since the last that was told

	decoder  *hpack.Decoder
	status   string // of the header that is being read
	answers  int
	messages [][]byte
}

const leanWindow = 1 << 20

func newLean(path string, messages [][]byte) (*lean, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	l := &lean{conn: c, out: bufio.NewWriterSize(c, 64<<10), in: bufio.NewReaderSize(c, 64<<10), next: 1, window: 65535, messages: messages}
	l.framer = http2.NewFramer(l.out, l.in)
	l.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			l.status = f.Value
		}
	})
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for range 2 { // the first begins with the size of the table
		b.Reset()
		for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", authv3.Authorization_Check_FullMethodName}, {":authority", "localhost"},
			{"content-type", "application/grpc"}, {"te", "trailers"}, {"grpc-timeout", "5S"}} {
			if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return nil, err
			}
		}
	}
	l.block = b.Bytes()
	l.out.WriteString(http2.ClientPreface)
	l.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: leanWindow})
	l.framer.WriteWindowUpdate(0, leanWindow)
	return l, l.out.Flush()
}

func (l *lean) send(message []byte) error {
	if l.window < len(message)+5 {
		return fmt.Errorf("the server leaves %d bytes to send", l.window)
	}
	l.window -= len(message) + 5
	id := l.next
	l.next += 2
	if err := l.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: l.block, EndHeaders: true}); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 1, len(message)+5), uint32(len(message)))
	return l.framer.WriteData(id, true, append(b, message...))
}

// run sends n checks, of which so many are under way at once.
func (l *lean) run(n, inFlight int) error {
	sent, open := 0, 0
	for done := 0; done < n; {
		// What was sent before the server's settings came is little.
		for open < inFlight && sent < n && (sent < 8 || l.window > 65535) {
			if err := l.send(l.messages[sent%len(l.messages)]); err != nil {
				return err
			}
			sent, open = sent+1, open+1
		}
		if l.in.Buffered() == 0 {
			if err := l.out.Flush(); err != nil {
				return err
			}
		}
		ended, err := l.read()
		if err != nil {
			return err
		}
		if ended {
			done, open = done+1, open-1
		}
	}
	return nil
}

// read reads a frame, and tells whether it ended a stream.
func (l *lean) read() (ended bool, err error) {
	f, err := l.framer.ReadFrame()
	if err != nil {
		return false, err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return false, l.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return false, l.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			l.window += int(f.Increment)
		}
	case *http2.DataFrame:
		if l.taken += len(f.Data()); l.taken > leanWindow/4 {
			if err := l.framer.WriteWindowUpdate(0, uint32(l.taken)); err != nil {
				return false, err
			}
			l.taken = 0
		}
		return false, l.look(f.Data())
	case *http2.HeadersFrame:
		l.status = ""
		if _, err := l.decoder.Write(f.HeaderBlockFragment()); err != nil || !f.HeadersEnded() {
			return false, fmt.Errorf("header: %w", err)
		}
		if f.StreamEnded() && l.status != "0" {
			return true, fmt.Errorf("gRPC status %q", l.status)
		}
		return f.StreamEnded(), nil
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		return false, fmt.Errorf("%v", f)
	}
	return false, nil
}

// look reads every hundredth answer whole.
func (l *lean) look(b []byte) error {
	l.answers++
	if len(b) < 6 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
		return fmt.Errorf("an answer of %d bytes", len(b))
	}
	if l.answers%100 != 0 {
		return nil
	}
	var r authv3.CheckResponse
	if err := proto.Unmarshal(b[5:], &r); err != nil || r.Status == nil || r.HttpResponse == nil {
		return fmt.Errorf("answer %v: %w", &r, err)
	}
	return nil
}
