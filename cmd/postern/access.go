package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/postern-project/postern/k8ssync/access"
)

func newAccessCommand() *cobra.Command {
	var source, kubeconfig, output string
	cmd := &cobra.Command{
		Use:   "access NAMESPACE/ACCOUNT (--source DIR | --kubeconfig FILE)",
		Short: "Tell who could obtain the access that a service account has",
		Long: `Tell which users, groups and service accounts could obtain the access that a
service account has: by running a pod with it, by creating or labelling it or its
namespace, by writing policy, or by giving themselves such a right.

It reads Roles, ClusterRoles and their bindings from an API server or from manifests.
Of admission it knows one thing: whether the guard service-accounts.postern is
there, with which running a pod needs the verb use on the account. The guard of
tiers narrows writing of policy further, and is not looked at. Members of groups, and
rights that another authorizer gives, are not known.`,
		Example: `  postern access prod-engineering/api-service --kubeconfig ~/.kube/config
  postern access prod-engineering/api-service --source ./manifests --output json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, name, ok := strings.Cut(args[0], "/")
			if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
				return usageError("%q: want NAMESPACE/ACCOUNT", args[0])
			}
			if (source == "") == (kubeconfig == "") {
				return usageError("want --source or --kubeconfig")
			}
			if output != "text" && output != "json" {
				return usageError("--output %q: want text or json", output)
			}
			var o access.Objects
			var err error
			if source != "" {
				o, err = access.ReadDirectory(source)
			} else {
				o, err = access.ReadCluster(cmd.Context(), kubeconfig)
			}
			if err != nil {
				return err
			}
			found := access.Find(o, access.Actions(access.Account{Namespace: namespace, Name: name}, o.UseGuard))
			w := cmd.OutOrStdout()
			if output == "json" {
				if found == nil {
					found = []access.Found{}
				}
				return writeJSON(w, found)
			}
			last := ""
			for _, f := range found {
				if s := f.Subject.String(); s != last {
					fmt.Fprintln(w, sanitize(s))
					last = s
				}
				fmt.Fprintf(w, "  %s: %s, through %s\n", sanitize(f.What), sanitize(strings.Join(f.Rights, " and ")), sanitize(strings.Join(f.Through, " and ")))
			}
			if len(found) == 0 {
				fmt.Fprintln(w, "nobody")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&source, "source", "", "directory of Kubernetes manifests to read")
	f.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file of the API server to read")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}
