package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/filter/inventory"
	"github.com/postern-project/postern/filter/policy"
)

// getConfig is what the flags of get say.
type getConfig struct {
	stateFlags
	node, namespace, output string
	everywhere              bool
}

func newGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get endpoints|policies|accounts|sets|flows [NAME | NAMESPACE/NAME]",
		Short: "List what the daemon decides on",
		Long: `List what the running daemon decides on: pods with the policies that select them,
policies with the pods here that they select, service accounts with the rules that
name them, network sets, and the flows that live (as "postern flows"). With a name, only the objects that have it.

The state is the daemon's, or that of --source or --state. Pods are those of this
node, and accounts those that such pods have, unless --all is given.

Exit code: 0, or 1 if a name is given and there is no such object.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError("get %q: want endpoints, policies, accounts, sets or flows", args[0])
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(
		newGetKind("endpoints", []string{"endpoint", "pods", "pod"}, "Pods and the policies that select them", (*inventory.Inventory).Endpoints, endpointTable),
		newGetKind("policies", []string{"policy"}, "Policies in the order in which they are evaluated, and the pods that they select", (*inventory.Inventory).Policies, policyTable),
		newGetKind("accounts", []string{"account", "serviceaccounts", "sa"}, "Service accounts, their pods, and where policies name them", (*inventory.Inventory).Accounts, accountTable),
		newGetKind("sets", []string{"set", "networksets"}, "Network sets", (*inventory.Inventory).Sets, setTable),
		newFlowsCommand(),
	)
	return cmd
}

// newGetKind makes the command for one kind: list finds its objects, and table prints
// one as cells, after a header.
func newGetKind[E any](name string, aliases []string, short string, list func(*inventory.Inventory, inventory.Wanted) []E, table func(wide bool) (header []string, row func(E) []string)) *cobra.Command {
	var c getConfig
	cmd := &cobra.Command{
		Use:     name + " [NAME | NAMESPACE/NAME]",
		Aliases: aliases,
		Short:   short,
		Example: "  postern get " + name + "\n  postern get " + name + " -n prod -o wide\n  postern get " + name + " prod/web -o json",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError("get %s: want one name at most, not %q", name, args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "wide", "json"}, c.output) {
				return usageError("--output %q: want text, wide or json", c.output)
			}
			w, err := c.wanted(args)
			if err != nil {
				return err
			}
			s, err := c.load(cmd.Context(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			node := c.node
			if s.live != nil {
				if node != "" {
					return usageError("--node: the running daemon has its own; leave it out, or give --source or --state")
				}
				node = s.node
			}
			found := list(inventory.New(s.snapshot, node), w)
			if c.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), found)
			} else {
				err = printTable(cmd.OutOrStdout(), found, c.output == "wide", table)
			}
			if err == nil && len(found) == 0 {
				if w.Name != "" {
					return exitError{exitNo, fmt.Errorf("%s %q: there is none in %s%s", name, args[0], s.from, c.hint())}
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "no %s%s\n", name, c.hint())
			}
			return err
		},
	}
	f := cmd.Flags()
	c.register(f)
	f.StringVar(&c.node, "node", "", "with --source or --state: list as this node would; by default all pods")
	f.StringVarP(&c.namespace, "namespace", "n", "", "only objects in this namespace")
	f.BoolVarP(&c.everywhere, "all", "A", false, "also pods of other nodes, and accounts that no pod here has")
	f.StringVarP(&c.output, "output", "o", "text", "text, wide or json")
	return cmd
}

// hint says where more may be.
func (c *getConfig) hint() string {
	if c.everywhere {
		return ""
	}
	return " (--all looks beyond this node)"
}

func (c *getConfig) wanted(args []string) (w inventory.Wanted, err error) {
	w = inventory.Wanted{Namespace: c.namespace, Everywhere: c.everywhere}
	if len(args) == 0 {
		return w, nil
	}
	w.Name = args[0]
	if namespace, name, ok := strings.Cut(args[0], "/"); ok {
		if w.Namespace != "" && w.Namespace != namespace {
			return w, usageError("--namespace %s and %s: give one of them", w.Namespace, args[0])
		}
		w.Namespace, w.Name = namespace, name
	}
	if w.Name == "" || strings.Contains(w.Name, "/") {
		return w, usageError("%q: want NAME or NAMESPACE/NAME", args[0])
	}
	return w, nil
}

func printTable[E any](w io.Writer, list []E, wide bool, table func(bool) ([]string, func(E) []string)) error {
	if len(list) == 0 {
		return nil
	}
	header, row := table(wide)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, e := range list {
		cells := row(e)
		for i := range cells {
			if cells[i] = oneLine(cells[i]); cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

func endpointTable(wide bool) ([]string, func(inventory.Endpoint) []string) {
	header := []string{"NAMESPACE", "NAME", "ACCOUNT", "ADDRESSES", "INGRESS", "EGRESS", "POLICIES"}
	if wide {
		header = append(header, "NODE", "LABELS")
	}
	return header, func(e inventory.Endpoint) []string {
		state := func(protected bool) string {
			switch {
			case e.Conflict:
				return "closed: address conflict"
			case !protected:
				return "open"
			case e.NamespaceMissing:
				return "protected, no namespace"
			default:
				return "protected"
			}
		}
		var policies []string
		for _, p := range e.Policies {
			policies = append(policies, place(p))
		}
		for _, p := range e.Staged {
			policies = append(policies, place(p)+" (staged)")
		}
		cells := []string{e.Namespace, e.Name, e.Account, joined(e.Addresses), state(e.Ingress), state(e.Egress), some(policies, wide)}
		if wide {
			cells = append(cells, e.Node, labels(e.Labels))
		}
		return cells
	}
}

func policyTable(wide bool) ([]string, func(inventory.Policy) []string) {
	header := []string{"TIER", "ORDER", "KIND", "NAME", "TYPES", "RULES", "SUBJECTS"}
	if wide {
		header = append(header, "SELECTOR")
	}
	return header, func(p inventory.Policy) []string {
		kind := string(p.Kind)
		if p.Staged != policy.Enforced {
			kind += " (" + string(p.Staged) + ")"
		}
		var types, rules []string
		if p.Ingress {
			types, rules = append(types, "ingress"), append(rules, strconv.Itoa(len(p.IngressRules)))
		}
		if p.Egress {
			types, rules = append(types, "egress"), append(rules, strconv.Itoa(len(p.EgressRules)))
		}
		var subjects []string
		for _, s := range p.Subjects {
			subjects = append(subjects, s.String())
		}
		cells := []string{p.Tier, orderText(p.Order), kind, p.Ref.String(), strings.Join(types, ","), strings.Join(rules, ","), some(subjects, wide)}
		if wide {
			var all []string
			for _, s := range []struct{ name, text string }{{"", p.Selector}, {"namespace: ", p.NamespaceSelector}, {"account: ", p.ServiceAccountSelector}} {
				if s.text != "" {
					all = append(all, s.name+s.text)
				}
			}
			cells = append(cells, strings.Join(all, "; "))
		}
		return cells
	}
}

func accountTable(wide bool) ([]string, func(inventory.Account) []string) {
	return []string{"NAMESPACE", "NAME", "LABELS", "PODS", "NAMED BY"}, func(a inventory.Account) []string {
		all := labels(a.Labels)
		if a.Missing {
			all = "(no such object)"
		}
		var pods, uses []string
		for _, p := range a.Pods {
			pods = append(pods, p.Name)
		}
		for _, u := range a.Uses {
			uses = append(uses, useText(u))
		}
		return []string{a.Namespace, a.Name, all, some(pods, wide), some(uses, wide)}
	}
}

// useText words a use: "ingress rule 0 of prod/db (Allow, source, by name)".
func useText(u inventory.Use) string {
	if u.Rule == nil {
		return fmt.Sprintf("subjects of %s (by %s)", u.Policy, u.By)
	}
	return fmt.Sprintf("%s rule %d of %s (%s, %s, by %s)", u.Direction, *u.Rule, u.Policy, u.Action, u.As, u.By)
}

func setTable(wide bool) ([]string, func(inventory.Set) []string) {
	return []string{"NAMESPACE", "NAME", "LABELS", "PREFIXES", "WHICH"}, func(s inventory.Set) []string {
		var nets []string
		for _, p := range s.Prefixes {
			nets = append(nets, p.String())
		}
		return []string{s.Namespace, s.Name, labels(s.Labels), strconv.Itoa(len(nets)), some(nets, wide)}
	}
}

// some joins texts, in a narrow table the first three of them.
func some(texts []string, wide bool) string {
	const few = 3
	if !wide && len(texts) > few {
		return strings.Join(texts[:few], ", ") + fmt.Sprintf(", +%d", len(texts)-few)
	}
	return strings.Join(texts, ", ")
}

func joined(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, ",")
}

func labels(m map[string]string) string {
	var texts []string
	for k, v := range m {
		texts = append(texts, k+"="+v)
	}
	slices.Sort(texts)
	return strings.Join(texts, ",")
}

// orderText is empty for an order that is not stated.
func orderText(o *float64) string {
	if o == nil {
		return ""
	}
	return strconv.FormatFloat(*o, 'g', -1, 64)
}

// place words where a policy is evaluated: "default:100 prod/db".
func place(p inventory.Applied) string {
	at := p.Tier
	if p.Order != nil {
		at += ":" + orderText(p.Order)
	}
	return at + " " + p.Ref.String()
}
