package lab

import (
	"fmt"

	"github.com/postern-project/postern/filter/policy"
	"github.com/postern-project/postern/k8ssync"
	"github.com/postern-project/postern/k8ssync/file"
)

// AddPods makes a pod for each Pod that a directory of manifests describes. The
// hosts are returned by "namespace/name"; the namespace on the machine is named
// after both.
func (l *Lab) AddPods(manifests string) (map[string]*Host, error) {
	s, err := Snapshot(manifests)
	if err != nil {
		return nil, err
	}
	hosts := map[string]*Host{}
	for _, e := range s.Endpoints {
		h, err := l.AddPod(e.Namespace+"-"+e.Name, e.Addrs...)
		if err != nil {
			return nil, err
		}
		hosts[e.Namespace+"/"+e.Name] = h
	}
	return hosts, nil
}

// Snapshot reads a directory of manifests, which must be without a fault.
func Snapshot(manifests string) (*policy.Snapshot, error) {
	objects, err := file.Load(manifests)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	store := k8ssync.NewStore()
	store.Replace(objects)
	if p := store.Problems(); len(p) > 0 {
		return nil, fmt.Errorf("lab: %w", p[0])
	}
	return store.Snapshot(), nil
}
