// Package convert turns API objects into policy values and refuses what
// Calico's admission refuses.
//
// Decode reads one object from JSON and Convert takes one that is typed
// already. Both give a Result: the value, and the problems that admission would
// have rejected the object for, each with the field it is in and what to write
// instead. Nothing here fails as a whole. An object that has problems still has
// a Value, its fail-closed reading (spec 1.10): if the policy's own selectors
// parse, rules that allow, pass or log and are faulty are gone and faulty rules
// that deny are deny-all; if they do not parse, there is no value. Whoever keeps
// the objects prefers the last valid version to that reading.
//
// Values say what the object says. Selectors are not scoped to a namespace and
// labels are not prefixed; evaluators do that. The Kubernetes kinds are the
// exception, since their meaning in Calico's terms is part of the conversion:
// their selectors are built as trees, never as text, so no label can change the
// meaning of what stands around it.
//
// All functions are pure and safe for concurrent use. Values share no memory
// with the objects they were made from, except strings.
package convert
