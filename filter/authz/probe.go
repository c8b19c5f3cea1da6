package authz

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// Question is a request to ask about, as a proxy would report it. Without a method
// and a path it is a connection.
type Question struct {
	Source, Destination                   netip.AddrPort
	SourcePrincipal, DestinationPrincipal string // empty for plain text
	Method, Path                          string
}

// CheckRequest gives the message for a question.
func (q *Question) CheckRequest() *authv3.CheckRequest {
	end := func(a netip.AddrPort, principal string) *authv3.AttributeContext_Peer {
		return &authv3.AttributeContext_Peer{Principal: principal, Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
		}}}}
	}
	out := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: end(q.Source, q.SourcePrincipal), Destination: end(q.Destination, q.DestinationPrincipal),
		Request: &authv3.AttributeContext_Request{},
	}}
	if q.Method != "" || q.Path != "" {
		out.Attributes.Request.Http = &authv3.AttributeContext_HttpRequest{Method: q.Method, Path: q.Path}
	}
	return out
}

// Answer is what a server said, in words.
type Answer struct {
	Status     codes.Code
	Reason     string
	Tier       string // of what decided, empty where nothing did
	Policy     string // its kind and name
	Rule       int    // and rule, from 0
	Generation uint64
}

func (a Answer) String() string {
	s := fmt.Sprintf("%s (%s", a.Status, a.Reason)
	switch {
	case a.Policy != "":
		s += fmt.Sprintf(": rule %d of %s in tier %s", a.Rule, a.Policy, a.Tier)
	case a.Tier != "":
		s += " of tier " + a.Tier
	}
	return s + ")"
}

// Client asks a server, as a proxy does.
type Client struct{ conn *grpc.ClientConn }

// NewClient returns a client of a Unix socket; nothing is connected before the first
// question. The caller closes it.
func NewClient(path string) (*Client, error) {
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return &Client{conn}, err
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Ask asks one question; nil asks nothing, which a server must deny.
func (c *Client) Ask(ctx context.Context, q *Question) (a Answer, err error) {
	req := &authv3.CheckRequest{}
	if q != nil {
		req = q.CheckRequest()
	}
	got, err := authv3.NewAuthorizationClient(c.conn).Check(ctx, req)
	if err != nil {
		return a, err
	}
	m := got.GetDynamicMetadata().GetFields()
	return Answer{
		Status: codes.Code(got.GetStatus().GetCode()), Reason: m["reason"].GetStringValue(), Tier: m["tier"].GetStringValue(), Policy: m["policy"].GetStringValue(),
		Rule: int(m["rule"].GetNumberValue()), Generation: uint64(m["generation"].GetNumberValue()),
	}, nil
}

// Time asks a question n times, one after the other, and gives how long the middle
// one and the slowest took.
func (c *Client) Time(ctx context.Context, q *Question, n int) (median, slowest time.Duration, err error) {
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if _, err := c.Ask(ctx, q); err != nil {
			return 0, 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[n/2], took[n-1], nil
}
