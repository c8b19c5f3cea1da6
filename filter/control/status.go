package control

import (
	"time"

	"github.com/postern-project/postern/filter/policy"
)

// Status is how a daemon is: whether it enforces, what, and how well it follows
// its source.
type Status struct {
	Node string `json:"node,omitempty"`
	// Enforcing: policy is in force. Since is when that began, and zero before.
	Enforcing bool      `json:"enforcing"`
	Since     time.Time `json:"since,omitzero"`
	// Generation is that of the snapshot in force, Applied when it was put in force.
	Generation uint64    `json:"generation,omitempty"`
	Applied    time.Time `json:"applied,omitzero"`
	Pods       int       `json:"pods"`
	Policies   int       `json:"policies"`
	// Hosted counts the pods of this node, ProtectedIngress and ProtectedEgress the
	// addresses that policy isolates in a direction.
	Hosted           int `json:"hosted"`
	ProtectedIngress int `json:"protected_ingress"`
	ProtectedEgress  int `json:"protected_egress"`

	// Source is where the state comes from. Saved is when the state in force was
	// saved, if it comes from a file because the source cannot be reached.
	Source string    `json:"source"`
	Synced bool      `json:"synced"`
	Saved  time.Time `json:"saved,omitzero"`
	// Kinds are what a Kubernetes source reads.
	Kinds []Kind `json:"kinds,omitempty"`
	// NodeMissing: no pod of the cluster names Node, and the cluster knows no such Node,
	// or does not say. Degraded has it too.
	NodeMissing bool `json:"node_missing,omitempty"`
	// Degraded says, in one sentence each, what is not as it should be.
	Degraded []string `json:"degraded,omitempty"`
	// Kept counts objects that are deleted and stay in force until the pods of their
	// namespace are gone.
	Kept int `json:"kept,omitempty"`

	// Unusable lists what is wrong with objects, at most MaxUnusable of UnusableTotal.
	Unusable      []Unusable `json:"unusable,omitempty"`
	UnusableTotal int        `json:"unusable_total"`
	// Objects counts what is known by kind, and UnusableKinds those problems.
	Objects       map[string]int `json:"objects,omitempty"`
	UnusableKinds map[string]int `json:"unusable_kinds,omitempty"`

	// Repairs counts how often the kernel's table was put in again because another program
	// had changed or removed it, or might have.
	Repairs uint64 `json:"repairs"`

	Packets  Packets  `json:"packets"`
	Requests Requests `json:"requests"`
}

// MaxUnusable bounds Status.Unusable.
const MaxUnusable = 200

// Kind is how one resource of a Kubernetes source is followed.
type Kind struct {
	Resource string `json:"resource"` // "plural.group/version"
	// State is live, syncing, unreachable, refused or silent.
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"`
	// Contact is when the API server was last heard about it.
	Contact time.Time `json:"contact,omitzero"`
	Error   string    `json:"error,omitempty"`
	Lists   uint64    `json:"lists"`
	Errors  uint64    `json:"errors"`
}

// Unusable is something wrong with an object.
type Unusable struct {
	policy.Problem
	// Held: the last valid version of the object is in force.
	Held bool `json:",omitempty"`
}
