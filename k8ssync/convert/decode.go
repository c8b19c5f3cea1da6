package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// ErrUnknownKind is wrapped by Decode's error for objects of kinds that no
// decision depends on.
var ErrUnknownKind = errors.New("kind is not used here")

// crdVersion is the API version under which Calico's objects are stored when
// its API server, and with it admission, stands between user and storage.
const crdVersion = "crd.projectcalico.org/v1"

// Decoding of kinds that come from Kubernetes itself is lenient: dumps are from
// any version, so unknown fields are no mistakes. Policies are strict: a
// misspelt criterion would otherwise be no criterion.
const (
	lenient = false
	strict  = true
)

type kindInfo struct {
	versions []string
	strict   bool
	new      func() meta.Object
}

// kinds is indexed by "group/Kind"; the core group is empty.
var kinds = map[string]kindInfo{
	"/Namespace":                      {[]string{"v1"}, lenient, func() meta.Object { return &core.Namespace{} }},
	"/ServiceAccount":                 {[]string{"v1"}, lenient, func() meta.Object { return &core.ServiceAccount{} }},
	"/Pod":                            {[]string{"v1"}, lenient, func() meta.Object { return &core.Pod{} }},
	"discovery.k8s.io/EndpointSlice":  {[]string{"v1"}, lenient, func() meta.Object { return &discovery.EndpointSlice{} }},
	"networking.k8s.io/NetworkPolicy": {[]string{"v1"}, strict, func() meta.Object { return &networking.NetworkPolicy{} }},
	"policy.networking.k8s.io/ClusterNetworkPolicy": {[]string{"v1alpha2"}, strict, func() meta.Object { return &cnp.ClusterNetworkPolicy{} }},
}

// calicoKinds are served by both of Calico's groups with the same contents.
var calicoKinds = map[string]func() meta.Object{
	"NetworkPolicy":                 func() meta.Object { return &calico.NetworkPolicy{} },
	"GlobalNetworkPolicy":           func() meta.Object { return &calico.GlobalNetworkPolicy{} },
	"StagedNetworkPolicy":           func() meta.Object { return &calico.StagedNetworkPolicy{} },
	"StagedGlobalNetworkPolicy":     func() meta.Object { return &calico.StagedGlobalNetworkPolicy{} },
	"StagedKubernetesNetworkPolicy": func() meta.Object { return &calico.StagedKubernetesNetworkPolicy{} },
	"Tier":                          func() meta.Object { return &calico.Tier{} },
	"Profile":                       func() meta.Object { return &calico.Profile{} },
	"NetworkSet":                    func() meta.Object { return &calico.NetworkSet{} },
	"GlobalNetworkSet":              func() meta.Object { return &calico.GlobalNetworkSet{} },
	"HostEndpoint":                  func() meta.Object { return &calico.HostEndpoint{} },
}

func init() {
	for kind, make := range calicoKinds {
		kinds["projectcalico.org/"+kind] = kindInfo{[]string{"v3"}, strict, make}
		kinds["crd.projectcalico.org/"+kind] = kindInfo{[]string{"v1"}, strict, make}
	}
}

// Decode reads one object from JSON and converts it. Fields of the wrong type,
// and in policies unknown and repeated ones, are problems of the object and
// count like what admission refuses. A namespaced object that names no namespace
// is in "default", as with kubectl.
//
// Doubts are mistakes that the caller saw in the text and that the JSON does not
// show any more. They become problems too, and no rule is taken as written.
//
// The error is ErrUnknownKind, or tells why the text is no object at all: bad
// JSON, no apiVersion, kind or name, or a version that is not supported.
func Decode(text []byte, doubts ...string) (Result, error) {
	if !json.Valid(text) {
		return Result{}, errors.New("decode object: not valid JSON")
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return Result{}, errors.New("decode object: want a mapping with the strings apiVersion and kind")
	}
	info, err := lookup(head.APIVersion, head.Kind)
	if err != nil {
		return Result{}, fmt.Errorf("decode object: %w", err)
	}
	obj := info.new()
	faults, err := decodeInto(obj, text, info.strict)
	if err != nil {
		return Result{}, fmt.Errorf("decode %s: %w", head.Kind, err)
	}
	if obj.GetName() == "" {
		return Result{}, fmt.Errorf("decode %s: metadata.name: not given; every object needs a name", head.Kind)
	}
	if strings.ContainsFunc(obj.GetName()+obj.GetNamespace(), unicode.IsControl) {
		return Result{}, fmt.Errorf("decode %s: metadata.name: holds control characters; remove them", head.Kind)
	}
	kind := KindOf(obj)
	if namespaced(kind) && obj.GetNamespace() == "" {
		obj.SetNamespace("default")
	}
	r := newReport(kind, obj)
	for _, d := range doubts {
		r.decodeFault(fault{message: d})
	}
	for _, f := range faults {
		r.decodeFault(f)
	}
	return r.result(convert(r, obj)), nil
}

func lookup(apiVersion, kind string) (kindInfo, error) {
	if apiVersion == "" || kind == "" {
		return kindInfo{}, errors.New("apiVersion and kind: both must be given")
	}
	group, version, found := strings.Cut(apiVersion, "/")
	if !found {
		group, version = "", apiVersion
	}
	info, ok := kinds[group+"/"+kind]
	if !ok {
		return kindInfo{}, fmt.Errorf("%s %s: %w", apiVersion, kind, ErrUnknownKind)
	}
	if !slices.Contains(info.versions, version) {
		return kindInfo{}, fmt.Errorf("%s: apiVersion %q is not supported; write %q", kind, apiVersion,
			strings.TrimPrefix(group+"/"+info.versions[0], "/"))
	}
	return info, nil
}

// decodeInto fills obj from text. The error is about text that is no mapping.
func decodeInto(obj any, text []byte, strict bool) ([]fault, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	d := decoder{dec: dec, strict: strict}
	if err := d.object(obj); err != nil {
		return nil, err
	}
	return d.faults, nil
}
