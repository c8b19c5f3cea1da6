// Package access tells which subjects could obtain an access that a service account
// has, by what they may do in the cluster: run a pod with the account, create or
// label it, label its namespace, write policy, or give themselves such a right.
//
// It reads Roles, ClusterRoles and their bindings, and nothing of what admission
// refuses besides, except the guard of service accounts, which Objects.UseGuard
// says is there. It is pure: Find works on objects, wherever they are from.
package access
