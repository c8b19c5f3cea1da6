package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/postern-project/postern/test/apiserver"
)

// models are one object of each kind as the API server made it, with what it adds:
// defaults, managed fields, the volume of the account's token.
type models struct {
	account *core.ServiceAccount
	policy  *unstructured.Unstructured
	pod     *core.Pod
}

// load fills the API server. Every write through it costs it a few milliseconds,
// and 220,000 of them minutes, so it makes one object of each kind; the others are
// copies that differ where objects do, and are written where it keeps its own. It is
// stopped meanwhile.
func (c *cluster) load(ctx context.Context, server *apiserver.Server) error {
	if err := parallel(namespaces, func(i int) error {
		_, err := c.typed.CoreV1().Namespaces().Create(ctx, &core.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace(i), Labels: map[string]string{"team": fmt.Sprintf("t%d", i%10)}}}, create)
		return err
	}); err != nil {
		return err
	}
	m, err := c.models(ctx)
	if err != nil {
		return err
	}
	if err := server.Stop(); err != nil {
		return err
	}
	to := etcd{server.Etcd()}
	for _, of := range []struct {
		n    int
		pair func(i int) (pair, error)
	}{{c.accounts, m.accountOf}, {c.policies, m.policyOf}, {c.pods, func(i int) (pair, error) { return c.podOf(m, i) }}} {
		const batch = 100 // etcd takes 128 in one transaction
		if err := parallel((of.n+batch-1)/batch, func(b int) error {
			var pairs []pair
			for i := b * batch; i < min(of.n, (b+1)*batch); i++ {
				p, err := of.pair(i)
				if err != nil {
					return err
				}
				pairs = append(pairs, p)
			}
			return to.put(ctx, pairs)
		}); err != nil {
			return err
		}
	}
	return nil
}

// models makes the first object of each kind and reads it again.
func (c *cluster) models(ctx context.Context) (m models, err error) {
	if _, err = c.typed.CoreV1().ServiceAccounts(namespace(0)).Create(ctx, &core.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account(0), Labels: accountLabels(0)}}, create); err != nil {
		return m, err
	}
	if m.account, err = c.typed.CoreV1().ServiceAccounts(namespace(0)).Get(ctx, account(0), metav1.GetOptions{}); err != nil {
		return m, err
	}
	if m.policy, err = c.dynamic.Resource(policyResource).Namespace(namespace(0)).Create(ctx, policyObject(0), create); err != nil {
		return m, err
	}
	if err = c.createPod(ctx, 0); err != nil {
		return m, err
	}
	m.pod, err = c.typed.CoreV1().Pods(namespace(0)).Get(ctx, podName(0), metav1.GetOptions{})
	return m, err
}

func uid(kind, i int) types.UID { return types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", kind, i)) }

func (m models) accountOf(i int) (pair, error) {
	a := m.account.DeepCopy()
	a.Namespace, a.Name, a.UID, a.Labels, a.ResourceVersion = namespace(i), account(i), uid(1, i), accountLabels(i), ""
	return stored("serviceaccounts", a)
}

func (m models) policyOf(i int) (pair, error) {
	p := m.policy.DeepCopy()
	p.Object["spec"] = policyObject(i).Object["spec"]
	p.SetNamespace(namespace(i))
	p.SetName(policyName(i))
	p.SetUID(uid(2, i))
	p.SetResourceVersion("")
	text, err := p.MarshalJSON()
	return pair{[]byte("/registry/projectcalico.org/networkpolicies/" + p.GetNamespace() + "/" + p.GetName()), text}, err
}

func (c *cluster) podOf(m models, i int) (pair, error) {
	p := m.pod.DeepCopy()
	p.Namespace, p.Name, p.UID, p.Labels, p.ResourceVersion = namespace(i), podName(i), uid(3, i), c.podLabels(i), ""
	p.Spec.NodeName, p.Spec.ServiceAccountName, p.Spec.DeprecatedServiceAccount = c.node(i), account(i%c.accounts), account(i%c.accounts)
	p.Status.PodIPs = podIPs(address(i), address6(i))
	p.Status.PodIP = p.Status.PodIPs[0].IP
	return stored("pods", p)
}

// stored gives an object as the API server keeps it.
func stored(plural string, o interface {
	metav1.Object
	runtime.Object
}) (pair, error) {
	s := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	value, err := runtime.Encode(scheme.Codecs.EncoderForVersion(s, core.SchemeGroupVersion), o)
	return pair{[]byte("/registry/" + plural + "/" + o.GetNamespace() + "/" + o.GetName()), value}, err
}

// pair is a key of etcd and its value.
type pair struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// etcd is written to by its HTTP gateway.
type etcd struct{ url string }

func (e etcd) put(ctx context.Context, pairs []pair) error {
	type op struct {
		Put pair `json:"request_put"`
	}
	var txn struct {
		Success []op `json:"success"`
	}
	for _, p := range pairs {
		txn.Success = append(txn.Success, op{p})
	}
	body, err := json.Marshal(txn)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v3/kv/txn", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd: %s: %.500s", answer.Status, text)
	}
	return err
}
