package kube

import (
	"errors"
	"fmt"
	"net/http"

	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// InCluster, in the place of a kubeconfig file, is the service account of the pod
// that postern runs in.
const InCluster = "in-cluster"

// loadConfig reads a kubeconfig file.
func loadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == InCluster {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("kubeconfig in-cluster: postern does not run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
		}
		return config, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return config, nil
}

// clients makes REST clients that share their connections. One for each group and
// version, without client-go's clientset: that would link every API there is.
type clients struct {
	config *rest.Config
	http   *http.Client
	typed  serializer.CodecFactory
	raw    serializer.CodecFactory
}

func newClients(config *rest.Config) (*clients, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // the feeds pace themselves; a start is some twenty requests at once
	config.WarningHandler = rest.NoWarnings{}
	if config.UserAgent == "" {
		config.UserAgent = "postern"
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("API client: %w", err)
	}
	return &clients{config: config, http: client, typed: serializer.NewCodecFactory(typedScheme()), raw: serializer.NewCodecFactory(rawScheme())}, nil
}

func typedScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(core.AddToScheme(s))
	utilruntime.Must(discovery.AddToScheme(s))
	return s
}

func rawScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, r := range append(append([]resource(nil), required...), optional...) {
		if r.raw {
			s.AddKnownTypeWithName(r.gv.WithKind(r.object), &raw{})
			s.AddKnownTypeWithName(r.gv.WithKind(r.object+"List"), &rawList{})
			meta.AddToGroupVersion(s, r.gv)
		}
	}
	meta.AddToGroupVersion(s, coreV1) // for Status
	return s
}

// of gives the client for a group and version.
func (c *clients) of(gv schema.GroupVersion, raw bool) (rest.Interface, error) {
	config := rest.CopyConfig(c.config)
	config.GroupVersion = &gv
	config.APIPath = "/apis"
	if gv.Group == "" {
		config.APIPath = "/api"
	}
	if raw {
		config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		config.NegotiatedSerializer = c.raw.WithoutConversion()
	} else {
		config.ContentType = runtime.ContentTypeProtobuf
		config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		config.NegotiatedSerializer = trimming{c.typed.WithoutConversion()}
	}
	client, err := rest.RESTClientForConfigAndClient(config, c.http)
	if err != nil {
		return nil, fmt.Errorf("API client for %s: %w", gv, err)
	}
	return client, nil
}
