package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/k8ssync/access"
)

// accessConfig is what the flags of access say.
type accessConfig struct {
	source, kubeconfig, output string
	system                     bool
}

func newAccessCommand() *cobra.Command {
	var c accessConfig
	cmd := &cobra.Command{
		Use:   "access ACCOUNT|RULE|POLICY (--source DIR | --kubeconfig FILE)",
		Short: "Tell who could obtain an access",
		Long: `Tell which users, groups and service accounts could obtain the access that a service
account has, or that a rule of a policy gives, or escape what the rule denies: by
running a pod with an account that the rule matches, by making or labelling the
account, its namespace or a pod, by writing policy that decides before the rule, by
changing tiers, or by giving themselves such a right. Each line tells what could be
done, with which right, and through which binding.

What is asked about may be written as commands print it, in quotes or not:

  prod/web                                        a service account, or the policy
  ServiceAccount prod/web                           if there is only one of the two
  NetworkPolicy prod/db                           all rules of a policy
  prod/db ingress[0]                              a rule, counted from 0
  ingress[0] of NetworkPolicy prod/db
  "rule ingress[0] (Allow) of NetworkPolicy prod/db in tier default"   explain, test,
                                                    diff and replay
  ingress rule 0 of NetworkPolicy prod/db in tier default              observe
  "NetworkPolicy prod/db: spec.ingress[0].source"                      lint

Roles, ClusterRoles, bindings, namespaces, accounts, tiers and policies are read from
an API server or from manifests. Of admission the guards of deploy/guards are known;
it is a warning if one is not there. Members of groups, rights that another
authorizer gives, and operators that make pods for others are not known.

Exit code: 0; 1 there is no such account, policy or rule; 2 usage.`,
		Example: `  postern access prod-engineering/api-service --kubeconfig ~/.kube/config
  postern access "ingress[0] of NetworkPolicy prod-engineering/demo-calico" --kubeconfig ~/.kube/config
  postern access prod-engineering/api-service --source ./manifests --output json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("access: want a service account, a rule or a policy")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runAccess(cmd, c, strings.Join(args, " "))
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.source, "source", "", "directory of Kubernetes manifests to read")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file of the API server to read")
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	f.BoolVar(&c.system, "system", false, "in text, tell all of the cluster's own controllers too; JSON always does")
	return cmd
}

func runAccess(cmd *cobra.Command, c accessConfig, words string) error {
	switch {
	case c.source != "" && c.kubeconfig != "":
		return usageError("--source and --kubeconfig: give one of them")
	case c.source == "" && c.kubeconfig == "":
		return usageError("want --source or --kubeconfig")
	case c.output != "text" && c.output != "json":
		return usageError("--output %q: want text or json", c.output)
	}
	var o access.Objects
	var warnings []string
	var err error
	if c.source != "" {
		o, warnings, err = access.ReadDirectory(c.source)
	} else {
		o, warnings, err = access.ReadCluster(cmd.Context(), c.kubeconfig)
	}
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "postern: warning:", sanitize(w))
	}
	report, err := access.Ask(&o, words)
	switch {
	case errors.Is(err, access.ErrNone):
		return exitError{exitNo, err}
	case err != nil:
		return usageError("%w", err)
	}
	if c.output == "json" {
		return writeJSON(cmd.OutOrStdout(), report)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), sanitize(accessText(&report, c.system)))
	return err
}

// accessText prints a report for people: each subject with what it could do, rights
// that lead to the same through the same bindings in one line.
func accessText(r *access.Report, system bool) string {
	var b strings.Builder
	fmt.Fprintln(&b, oneLine(r.Of))
	for _, e := range r.Ends {
		name := ""
		if !strings.HasPrefix(r.Of, "rule ") {
			name = " of " + e.Rule
		}
		what := "peer"
		if e.Protected {
			what = "protected"
		}
		fmt.Fprintf(&b, "  %s (%s)%s: %s\n", e.Side, what, oneLine(name), oneLine(e.Selector))
		if len(e.Accounts) > 0 {
			fmt.Fprintf(&b, "    accounts now: %s\n", oneLine(some(e.Accounts, false)))
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "  warning: %s\n", oneLine(w))
	}
	var own []string // the cluster's own, left out
	any := false
	for ways := r.Ways; len(ways) > 0; {
		s := ways[0].Subject
		n := slices.IndexFunc(ways, func(f access.Found) bool { return f.Subject != s })
		if n < 0 {
			n = len(ways)
		}
		if !system && !slices.ContainsFunc(ways[:n], func(f access.Found) bool { return !f.OfCluster }) {
			own = append(own, s.String())
		} else {
			any = true
			fmt.Fprintf(&b, "\n%s\n", oneLine(s.String()))
			subjectText(&b, ways[:n])
		}
		ways = ways[n:]
	}
	if !any {
		b.WriteString("\nnobody\n")
	}
	if len(own) > 0 {
		fmt.Fprintf(&b, "\nand of the cluster's own (--system): %s\n", oneLine(strings.Join(own, ", ")))
	}
	return b.String()
}

// subjectText prints what one subject could do. Of rights that differ in their verb
// and resource alone it makes one line: "create pods, create/patch deployments.apps in
// prod, and use serviceaccounts/web in prod".
func subjectText(b *strings.Builder, ways []access.Found) {
	for len(ways) > 0 {
		first := ways[0]
		through := strings.Join(first.Through, " and ")
		what := first.What
		if first.Side != "" {
			what = first.Side + ": " + what
		}
		fmt.Fprintf(b, "  %s\n", oneLine(what))
		var tails []string
		resources, verbs := map[string][]string{}, map[[2]string][]string{}
		rest := ways[:0:0]
		for _, f := range ways {
			if f.Side != first.Side || f.What != first.What || strings.Join(f.Through, " and ") != through {
				rest = append(rest, f)
				continue
			}
			verb, resource, _ := strings.Cut(f.Rights[0], " ")
			resource, in, ok := strings.Cut(resource, " in ")
			tail := strings.Join(f.Rights[1:], " and ")
			if tail != "" {
				tail = ", and " + tail
			}
			if ok {
				tail = " in " + in + tail
			}
			if len(f.At) > 0 {
				tail += ", at " + some(f.At, false)
			}
			if resources[tail] == nil {
				tails = append(tails, tail)
			}
			if !slices.Contains(resources[tail], resource) {
				resources[tail] = append(resources[tail], resource)
			}
			verbs[[2]string{tail, resource}] = append(verbs[[2]string{tail, resource}], verb)
		}
		for _, tail := range tails {
			var texts []string
			last := ""
			slices.SortStableFunc(resources[tail], func(a, b string) int {
				return slices.Compare(verbs[[2]string{tail, a}], verbs[[2]string{tail, b}])
			})
			for _, resource := range resources[tail] {
				text := strings.Join(verbs[[2]string{tail, resource}], "/")
				if text != last {
					last, resource = text, text+" "+resource
				}
				texts = append(texts, resource)
			}
			fmt.Fprintf(b, "    %s%s\n", oneLine(strings.Join(texts, ", ")), oneLine(tail))
		}
		fmt.Fprintf(b, "    through %s\n", oneLine(through))
		ways = rest
	}
}
