package lint

import "fmt"

// sidecarLabel and sidecarValue mark pods whose sidecar asks about requests: it is
// what the EnvoyFilter of deploy/istio selects them by. That such a pod has the
// sidecar is not checked: what does not ask does not get requests.
const sidecarLabel, sidecarValue = "postern", "authz"

// checkHTTP finds rules whose methods and paths nobody looks at. Packets have
// neither: what is not asked about is decided without them.
func (c *checker) checkHTTP(at place) {
	if at.rule.HTTP == nil {
		return
	}
	field := at.field() + ".http"
	plain := fmt.Sprintf("packets have neither methods nor paths, and to them this rule is a plain %s", at.rule.Action)
	var silent []string
	for _, i := range c.selected[at.p] {
		if o := &c.objects[i]; o.pod == nil || o.pod.Labels[sidecarLabel] != sidecarValue {
			silent = append(silent, o.Key.String())
		}
	}
	const advice = "have their sidecars ask: in the pod template the label postern: authz and the annotations sidecar.istio.io/userVolume and " +
		"sidecar.istio.io/userVolumeMount of deploy/istio/sidecar-volume.yaml, and the namespace labelled istio-injection: enabled (docs/istio.md); " +
		"or allow only sources that may send any request"
	switch {
	case len(silent) > 0:
		c.add(HTTPNotEnforced, at.p.Key(), field, "no sidecar asks postern about requests to "+list(silent)+": "+plain, advice)
	case len(c.selected[at.p]) == 0:
		c.add(HTTPNotEnforced, at.p.Key(), field, "methods and paths are looked at only where a sidecar asks postern: "+plain, advice)
	}
}
