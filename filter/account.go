package filter

import "maps"

// Account is the service account that a certificate names, with everything that
// rules can ask of it. The maps are read-only.
type Account struct {
	Namespace, Name string
	// Labels are those of the service account's object and NamespaceLabels those
	// of its namespace's, as the Ruleset knows them; nil where there is no object.
	Labels, NamespaceLabels map[string]string
	// Reported are labels that the asker knows of the peer. The account's own
	// come first.
	Reported map[string]string
}

// accounts has the labels of every namespace and of every service account, also
// of those that no pod here uses: a certificate may name any. It is spread over
// shards so that a Builder copies one of them for a change and not all.
type accounts [accountShards]map[string]*accountsOf

const accountShards = 64

// accountsOf is a namespace. The labels are nil for one that has no object.
type accountsOf struct {
	labels  map[string]string
	members map[string]map[string]string // labels by account
}

// shardOf hashes a name (FNV-1a).
func shardOf(namespace string) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(namespace); i++ {
		h = (h ^ uint32(namespace[i])) * 16777619
	}
	return h % accountShards
}

// describe fills in what is known of an account.
func (a *accounts) describe(acc *Account) {
	if of := a[shardOf(acc.Namespace)][acc.Namespace]; of != nil {
		acc.NamespaceLabels = of.labels
		acc.Labels = of.members[acc.Name]
	}
}

// accountBook is the Builder's side of accounts.
type accountBook struct {
	now accounts
	// owned are the shards and entries that no Ruleset has, which may be changed in
	// place.
	ownedShards  [accountShards]bool
	ownedEntries map[*accountsOf]bool
	published    *accounts // what the last Ruleset has, while nothing changed
}

// SetNamespace gives a namespace its labels, which must not change.
func (b *accountBook) SetNamespace(name string, labels map[string]string) {
	b.change(name, func(of *accountsOf) { of.labels = labels })
}

// RemoveNamespace takes the labels away; accounts in it stay.
func (b *accountBook) RemoveNamespace(name string) { b.SetNamespace(name, nil) }

// SetAccount gives a service account its labels, which must not change.
func (b *accountBook) SetAccount(namespace, name string, labels map[string]string) {
	b.change(namespace, func(of *accountsOf) {
		if of.members == nil {
			of.members = make(map[string]map[string]string)
		}
		of.members[name] = labels
	})
}

// RemoveAccount takes the account away.
func (b *accountBook) RemoveAccount(namespace, name string) {
	b.change(namespace, func(of *accountsOf) { delete(of.members, name) })
}

// change changes a namespace's entry, or a copy of it if a Ruleset has it.
func (b *accountBook) change(namespace string, f func(*accountsOf)) {
	n := shardOf(namespace)
	if !b.ownedShards[n] {
		shard := make(map[string]*accountsOf, len(b.now[n])+1)
		maps.Copy(shard, b.now[n])
		b.now[n], b.ownedShards[n] = shard, true
	}
	of := b.now[n][namespace]
	if !b.ownedEntries[of] {
		made := &accountsOf{}
		if of != nil {
			made.labels, made.members = of.labels, maps.Clone(of.members)
		}
		of = made
		if b.ownedEntries == nil {
			b.ownedEntries = make(map[*accountsOf]bool)
		}
		b.ownedEntries[of] = true
	}
	f(of)
	b.published = nil
	if of.labels == nil && len(of.members) == 0 {
		delete(b.now[n], namespace)
		return
	}
	b.now[n][namespace] = of
}

// share gives the accounts to a Ruleset.
func (b *accountBook) share() *accounts {
	if b.published == nil {
		out := b.now
		b.published = &out
		b.ownedShards = [accountShards]bool{}
		b.ownedEntries = nil
	}
	return b.published
}
