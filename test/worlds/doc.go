// Package worlds draws random worlds, policies and flows for property tests.
//
// A world is small on purpose: few labels, names, ports and addresses, so that a
// random rule matches a random packet about as often as not. Everything the policy
// model has occurs in it, reserved labels that must not be believed included.
package worlds
