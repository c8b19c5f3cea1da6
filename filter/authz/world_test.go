package authz

import (
	"context"
	"path/filepath"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/postern-project/postern/filter"
	"github.com/postern-project/postern/filter/compile"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// world is a small cluster: an api and a web pod, and a database that only the
// account api may read, below /public and at /health.
const world = `
{apiVersion: v1, kind: Namespace, metadata: {name: prod, labels: {env: prod}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: prod, name: api, labels: {role: backend}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: prod, name: web}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: prod, name: api}, spec: {serviceAccountName: api, nodeName: node, containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: prod, name: web}, spec: {serviceAccountName: web, nodeName: node, containers: [{name: c}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: prod, name: db, labels: {app: db}}, spec: {serviceAccountName: db, nodeName: node, containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}}
---
`

const policyAPI = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: prod, name: db}
spec:
  selector: app == "db"
  ingress:
  - action: Allow
    protocol: TCP
    source: {serviceAccounts: {names: [api]}}
    destination: {ports: [http]}
    http: {methods: [GET, HEAD], paths: [{prefix: /public}, {exact: /health}]}
`

const policyWeb = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {namespace: prod, name: db}
spec:
  selector: app == "db"
  ingress: [{action: Allow, source: {serviceAccounts: {names: [web]}}}]
`

// compiled makes a ruleset of manifests.
func compiled(t testing.TB, generation uint64, manifests string) *filter.Ruleset {
	t.Helper()
	objects, err := file.Parse("world.yaml", []byte(manifests))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		for _, p := range o.Problems {
			t.Fatal(p)
		}
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	s := *store.Snapshot()
	s.Generation = generation
	rs, problems := compile.Compile(&s, compile.Options{})
	if rs == nil {
		t.Fatal(problems)
	}
	return rs
}

// serve runs a server on a Unix socket until the test ends.
func serve(t testing.TB, engine *filter.Engine, cfg Config) (s *Server, path string) {
	t.Helper()
	s, err := New(engine, cfg)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "authz.sock")
	l, err := ListenUnix(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s, l)
	return s, path
}

func run(t testing.TB, s *Server, l *Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dial(t testing.TB, path string, options ...grpc.DialOption) authv3.AuthorizationClient {
	t.Helper()
	return authv3.NewAuthorizationClient(connect(t, path, options...))
}

func connect(t testing.TB, path string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	c, err := grpc.NewClient("unix:"+path, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// engineOf gives an engine with a ruleset in force.
func engineOf(rs *filter.Ruleset) *filter.Engine {
	e := &filter.Engine{}
	e.Swap(rs)
	return e
}

func socket(addr string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

const (
	idAPI = "spiffe://cluster.local/ns/prod/sa/api"
	idWeb = "spiffe://cluster.local/ns/prod/sa/web"
	idDB  = "spiffe://cluster.local/ns/prod/sa/db"
)

// ask is a request of the api pod for the database, as Envoy reports it.
func ask(method, path string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: socket("10.0.0.1", 40000), Principal: idAPI},
		Destination: &authv3.AttributeContext_Peer{Address: socket("10.0.0.3", 80), Principal: idDB},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "7", Method: method, Path: path, Host: "db.prod", Scheme: "https", Protocol: "HTTP/1.1",
			Headers: map[string]string{":method": method, ":path": path, ":authority": "db.prod", "user-agent": "test"},
		}},
	}}
}

func text(m *structpb.Struct, field string) string { return m.GetFields()[field].GetStringValue() }
