package policy

// Change is one object's change between two snapshots. Old and New are pointers
// to the same type of value, one of those that a Snapshot lists by pointer
// (*Policy, *Profile, *Namespace, *ServiceAccount, *Endpoint, *HostEndpoint,
// *NetworkSet, *EndpointSlice) or *Tier; Old is nil for an object that comes, New
// for one that goes.
type Change struct{ Old, New any }
