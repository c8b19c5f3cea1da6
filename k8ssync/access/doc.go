// Package access tells which subjects could obtain an access, by what they may do in
// the cluster: that of a service account, or what a rule of a policy gives or denies.
//
// A way is one thing that leads to the access, with the rights that it takes and the
// places where they are asked for: run a pod with an account that the rule takes,
// label the account, its namespace or a pod into the rule or out of it, write policy
// that decides before it, move a tier, or give oneself such a right. Ways follow from
// the rule and the objects that its selectors see; Find holds them against Roles,
// ClusterRoles and their bindings.
//
//	rule, namespaces, accounts, tiers ──▶ []Way ─┐
//	Roles, ClusterRoles, bindings, guards ───────┴─▶ Find ──▶ []Found
//
// Where a selector depends on labels that somebody may set, what could be counts: too
// much may be told, too little not. Of admission only the two guards in deploy/guards
// are known. Reading is apart from telling, and telling is pure.
package access
