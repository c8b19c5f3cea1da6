package apiserver

import (
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// As is the configuration of a client that has the rights of a user and groups, and
// those of system:authenticated. A service account is the user
// system:serviceaccount:NAMESPACE:NAME; its own groups are added by the API server.
func (s *Server) As(user string, groups ...string) *rest.Config {
	c := s.Admin()
	c.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return c
}

// Kubeconfig writes a file for programs and gives its path. With a user, its rights
// are those of As; with "", it may do everything. The file goes with the server.
func (s *Server) Kubeconfig(user string, groups ...string) (path string, err error) {
	c := api.NewConfig()
	c.Clusters["test"] = &api.Cluster{Server: s.url, CertificateAuthority: s.path("certs", "apiserver.crt")}
	c.AuthInfos["test"] = &api.AuthInfo{Token: s.token, Impersonate: user, ImpersonateGroups: groups}
	c.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	f, err := os.CreateTemp(s.dir.path, "kubeconfig-*")
	if err != nil {
		return "", fmt.Errorf("apiserver: %w", err)
	}
	f.Close()
	if err := clientcmd.WriteToFile(*c, f.Name()); err != nil {
		return "", fmt.Errorf("apiserver: %w", err)
	}
	return f.Name(), nil
}

// Files gives the paths of the key that service account tokens are signed with and
// of the certificate that the API server is known by: a controller manager needs
// both.
func (s *Server) Files() (key, certificate string) {
	return s.path("sa.key"), s.path("certs", "apiserver.crt")
}
