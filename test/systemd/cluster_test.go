//go:build systemd

package systemd

import (
	"encoding/base64"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/postern-project/postern/test/apiserver"
)

// cluster: on the node of a cluster, with a kubeconfig that the user may read, with one
// that systemd reads for it, and with an API server that is gone.
func (w *world) cluster() {
	server, err := apiserver.Start()
	w.check(err)
	defer func() { w.check(server.Close()) }()
	w.check(server.Apply(w.Context(), "../../deploy/crds", "../../deploy/kubernetes"))
	for _, name := range []string{"namespaces", "serviceaccounts", "pods", "policy-1-names", "policy-2-labels", "policy-3-selector"} {
		text, err := os.ReadFile(examples + name + ".yaml")
		w.check(err)
		w.check(server.ApplyYAML(w.Context(), strings.ReplaceAll(string(text), "  serviceAccountName:", "  nodeName: "+hostname+"\n  containers: [{name: c, image: i}]\n  serviceAccountName:")))
	}
	at, err := url.Parse(server.Admin().Host)
	w.check(err)
	f, err := w.node.Forward(at.Host)
	w.check(err)
	defer f.Close()

	settings := w.run("cat", "/etc/postern/postern.yaml")
	w.run("systemctl", "stop", "postern")
	w.run("sed", "-i", "/^source:/d", "/etc/postern/postern.yaml")
	w.write("/var/tmp/kubeconfig", w.kubeconfig(server))
	w.follow("install -o root -g postern -m 0640 kubeconfig /etc/postern/kubeconfig")
	w.follow("echo 'kubeconfig: /etc/postern/kubeconfig' >>/etc/postern/postern.yaml")
	w.follow("systemctl enable --now postern")
	if got := w.run("postern", "status"); !strings.HasPrefix(got, "enforcing") {
		w.Errorf("status: %s", got)
	}
	w.reaches("prod-engineering/api", "prod-engineering/db", true)
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)
	w.wait("the state is saved", func() bool { _, err := w.Exec("test", "-s", "/var/lib/postern/state"); return err == nil })

	w.run("sed", "-i", "/^kubeconfig:/d", "/etc/postern/postern.yaml")
	w.run("rm", "/etc/postern/kubeconfig")
	w.run("install", "-m", "0600", "/var/tmp/kubeconfig", "/root/postern.kubeconfig")
	w.write("/etc/systemd/system/postern.service.d/credential.conf", w.unit("LoadCredential="))
	w.run("systemctl", "daemon-reload")
	w.run("systemctl", "restart", "postern")
	if got := w.run("postern", "status"); !strings.HasPrefix(got, "enforcing") || strings.Contains(got, "saved") {
		w.Errorf("status with a credential: %s", got)
	}

	w.check(server.Kill())
	w.run("systemctl", "restart", "postern")
	if got := w.run("postern", "status"); !strings.HasPrefix(got, "enforcing") {
		w.Errorf("status without an API server: %s", got)
	}
	w.reaches("prod-engineering/api", "prod-engineering/db", true)
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)

	w.run("rm", "-r", "/etc/systemd/system/postern.service.d", "/root/postern.kubeconfig", "/var/tmp/kubeconfig")
	w.write("/etc/postern/postern.yaml", settings)
	w.run("systemctl", "daemon-reload")
	w.run("systemctl", "restart", "postern")
}

var authority = regexp.MustCompile(`certificate-authority: (\S+)`)

// kubeconfig is of the account that deploy makes, with the certificate in it.
func (w *world) kubeconfig(server *apiserver.Server) string {
	w.Helper()
	path, err := server.Kubeconfig("system:serviceaccount:postern:postern")
	w.check(err)
	text, err := os.ReadFile(path)
	w.check(err)
	m := authority.FindSubmatch(text)
	if m == nil {
		w.Fatalf("kubeconfig without an authority: %s", text)
	}
	certificate, err := os.ReadFile(string(m[1]))
	w.check(err)
	return authority.ReplaceAllString(string(text), "certificate-authority-data: "+base64.StdEncoding.EncodeToString(certificate))
}
