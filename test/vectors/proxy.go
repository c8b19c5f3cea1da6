package vectors

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/authz"
	"github.com/postern-project/postern/filter/flow"
)

// proxy asks as Envoy does: over gRPC, through a Unix socket, the server that the
// daemon runs.
type proxy struct {
	dir    string
	conn   *grpc.ClientConn
	stop   context.CancelFunc
	served chan error
}

// newProxy serves a ruleset and connects to it.
func newProxy(rs *filter.Ruleset) (p *proxy, err error) {
	engine := &filter.Engine{}
	engine.Swap(rs)
	s, err := authz.New(engine, authz.Config{})
	if err != nil {
		return nil, err
	}
	p = &proxy{served: make(chan error, 1)}
	if p.dir, err = os.MkdirTemp("", "vectors"); err != nil {
		return nil, err
	}
	path := filepath.Join(p.dir, "authz.sock")
	l, err := authz.ListenUnix(path, -1)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() { p.served <- s.Serve(ctx, l) }()
	p.conn, err = grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return p, err
}

func (p *proxy) close() {
	if p == nil {
		return
	}
	if p.conn != nil {
		p.conn.Close()
	}
	if p.stop != nil {
		p.stop()
		<-p.served
	}
	os.RemoveAll(p.dir)
}

// ask sends the check of a flow.
func (p *proxy) ask(f *Flow, t flow.Tuple) answer {
	end := func(addr string, port uint16, principal string) *authv3.AttributeContext_Peer {
		s := &corev3.SocketAddress{Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}
		if t.Proto == flow.UDP {
			s.Protocol = corev3.SocketAddress_UDP
		}
		return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: s}}, Principal: principal}
	}
	req := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: end(t.Src.String(), t.SrcPort, f.From), Destination: end(t.Dst.String(), t.DstPort, f.To),
		Request: &authv3.AttributeContext_Request{},
	}}
	if f.Method != "" {
		req.Attributes.Request.Http = &authv3.AttributeContext_HttpRequest{
			Method: f.Method, Path: f.Path, Headers: map[string]string{":method": f.Method, ":path": f.Path}, Protocol: "HTTP/2",
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := authv3.NewAuthorizationClient(p.conn).Check(ctx, req)
	if err != nil {
		return unable(err.Error())
	}
	status := map[codes.Code]string{
		codes.OK: "OK", codes.PermissionDenied: "PERMISSION_DENIED", codes.InvalidArgument: "INVALID_ARGUMENT", codes.Internal: "INTERNAL", codes.Unknown: "UNKNOWN",
	}[codes.Code(got.GetStatus().GetCode())]
	return answer{status, fmt.Sprint(got.GetDynamicMetadata())}
}
