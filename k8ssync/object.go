package k8ssync

import "github.com/postern-project/postern/filter/policy"

// Object is one object as a source read it.
type Object struct {
	Key policy.Key
	// Value is a pointer to the policy value of the object's kind: *policy.Policy,
	// *policy.Tier, *policy.Profile, *policy.Namespace, *policy.ServiceAccount,
	// *policy.Endpoint, *policy.HostEndpoint, *policy.NetworkSet or
	// *policy.EndpointSlice. It is nil for an object that exists and contributes
	// nothing, such as a completed pod. Of an invalid object it is the fail-closed
	// reading, or nil if there is none. It is read-only once it is in a Store.
	Value any
	// Problems is empty for a valid object.
	Problems []policy.Problem
	// Warnings tell where a valid object does not do what it seems to say.
	Warnings []policy.Problem
}
