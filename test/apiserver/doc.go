// Package apiserver runs a real API server with a real etcd behind it, on loopback
// and on ports of its own, for tests and benchmarks.
//
// Authorization is RBAC, as in a cluster; admission is what kube-apiserver enables
// by default, so a pod needs its service account. No controller and no node runs:
// nothing is created that the test does not create, a pod with a node is not
// started, and stays when it is deleted until it is deleted with a grace period of
// zero.
//
// A test binary starts one server for all its tests:
//
//	var server *apiserver.Server
//
//	func TestMain(m *testing.M) { os.Exit(apiserver.Main(m, &server)) }
//
// The programs end with the process that started them, even if it is killed. What
// such a process left on disk is removed by the next one.
//
// It needs etcd (Debian: etcd-server) and the Go toolchain.
package apiserver
