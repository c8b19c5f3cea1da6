package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern-project/postern/filter/control"
	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/nfq"
	"github.com/postern-project/postern/filter/nft"
	"github.com/postern-project/postern/internal/settings"
)

// runConfig is what the flags of run say.
type runConfig struct {
	source, kubeconfig   string
	node, socket         string
	stateFile            string
	events               bool
	assertions           []string
	queueFirst, queues   uint16
	queueLen, queueBytes uint32
	queueVia             string
	markMask             uint32
	toHost               string
	vxlanPort            uint16
	allowTunnels         bool
	flowLog              string
	flowLogRate          int
	flowLogInterval      time.Duration
	flowLogEnds          bool
	flowLogCached        time.Duration
	flowLogSample        int
	logRuleRate          int
	logPrefix            string
	invalid              string
	logFormat, logLevel  string
	given                given  // the command line
	file                 string // of settings; empty for none
	byKey                map[string]string
	cleanup              bool
	startWait            time.Duration
	sources              sourcesConfig
	authz                authzConfig
	listen               listenConfig
	exceptions           exceptionConfig
	kernelConfig
}

func newRunCommand() *cobra.Command {
	var c runConfig
	cmd := &cobra.Command{
		Use:   "run (--source DIR | --kubeconfig FILE)",
		Short: "Enforce policy on this host until told to stop",
		Long: `Enforce policy on this host: that of a directory of Kubernetes manifests, or that
of a cluster.

With --kubeconfig it follows the API server and enforces the pods of this node
(--node). "in-cluster" in the place of a file is the service account of the pod
that postern runs in. While the API server cannot be reached, what was known last
stays in force, and "postern status" says so; a start without it begins with the
state that was saved last (--state-file).

With --source the directory holds what kubectl would take: Namespaces, ServiceAccounts, Pods with
their addresses in status.podIPs, and policies of projectcalico.org/v3 and
networking.k8s.io/v1. It is watched: a change is in force a moment after it was
written. A file that cannot be read keeps its last good state, and the log says
what is wrong with it.

With --assertions a change that breaks one of them is refused as a whole: the last
good state stays in force, at first none, until the manifests are mended. "postern
test" judges the same files without enforcing anything.

Pods that no policy selects are never delayed. For those that one does, the first
packet of each new flow waits for a decision, unless one like it was decided before;
without postern it is dropped, and flows that were accepted before go on. A change
of policy stops what it denies at its next packet (--established-flows).

Needs root, or CAP_NET_ADMIN in the network namespace of the host.`,
		Example: `  postern run --source /etc/postern/manifests
  postern run --source ./manifests --flow-log all --cleanup
  postern run --kubeconfig /etc/kubernetes/kubelet.conf`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.load(cmd.Flags(), givenFlags(cmd.Flags())); err != nil {
				return exitError{exitUsage, err}
			}
			return run(cmd.Context(), c, cmd.ErrOrStderr())
		},
	}
	addRunFlags(cmd.Flags(), &c)
	return cmd
}

// addRunFlags defines the settings of run. Each has a key in the configuration file
// and an environment variable besides, by its name.
func addRunFlags(f *pflag.FlagSet, c *runConfig) {
	f.String(settings.FileFlag, "", "file of settings; environment variables are stronger than it, and flags stronger than these (see \"postern config\")")
	f.StringVar(&c.source, "source", "", "directory of Kubernetes manifests to enforce")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "follow the API server of this kubeconfig file, or in-cluster")
	f.StringArrayVar(&c.assertions, "assertions", nil, "file of assertions that every change must keep (may be repeated; read at start)")
	f.StringVar(&c.node, "node", "", "enforce only pods whose spec.nodeName is this, or empty; by default all of --source, and with --kubeconfig $NODE_NAME or the host's name")
	f.StringVar(&c.stateFile, "state-file", defaultStateFile, "with --kubeconfig, where to save what is in force for a start without the API server; empty for nowhere")
	f.BoolVar(&c.events, "events", true, "with --kubeconfig, write a Kubernetes Event about each object that cannot be used")
	f.StringVar(&c.socket, "socket", control.DefaultSocket, "Unix socket on which explain and snapshot ask; empty for none")
	f.Uint16Var(&c.queueFirst, "queue", 100, "first netfilter queue number")
	f.Uint16Var(&c.queues, "queues", 1, "how many queues, each with a thread of its own; flows are spread over them by address pair")
	f.Uint32Var(&c.queueLen, "queue-length", nfq.DefaultMaxLen, "packets that may wait in a queue; what is over is dropped and counted by the kernel")
	f.Uint32Var(&c.queueBytes, "queue-copy", nfq.DefaultCopyRange, "bytes of a packet to look at; a packet that shows no ports within is dropped")
	f.StringVar(&c.queueVia, "queue-via", "auto", "how the kernel queues: native (nft_queue), xt (xt_NFQUEUE) or auto")
	c.markMask = nft.DefaultMask
	f.Var((*hexadecimal)(&c.markMask), "mark-mask", "bits of packet and conntrack marks that postern may use: at least 6 in a row that nobody else does")
	f.StringVar(&c.toHost, "endpoint-to-host", "accept", "what becomes of a pod's new flows to this host once its egress policy allowed them: accept, drop or reject")
	f.Uint16Var(&c.vxlanPort, "vxlan-port", nft.DefaultVXLANPort, "UDP port to which pods may not send, since VXLAN arrives there; 0 for none")
	f.BoolVar(&c.allowTunnels, "allow-tunnels", false, "let pods send VXLAN and IP in IP, as far as policy allows")
	f.StringVar(&c.flowLog, "flow-log", "denied", "which decisions to log: all, denied or none")
	f.IntVar(&c.flowLogRate, "flow-log-rate", 1000, "decisions to log in a second at most; the rest is counted; 0 for no limit")
	f.DurationVar(&c.flowLogInterval, "flow-log-interval", flowlog.DefaultInterval, "of denials that are alike but for the source port the first is logged at once, and the rest counted in a line each time this has passed; 0 for a line each")
	f.IntVar(&c.flowLogSample, "flow-log-sample", 1, "with --flow-log all, log one of so many accepted flows, chosen at random")
	f.BoolVar(&c.flowLogEnds, "flow-log-ends", false, "log the end of each flow that was judged, with what it carried if --conntrack-accounting is on; at most --flow-log-rate a second")
	f.DurationVar(&c.flowLogCached, "flow-log-cached", 10*time.Second, "interval of log lines about flows that the kernel decided from its caches, those of --flow-log, counted by accounts and port; 0 for none")
	f.IntVar(&c.logRuleRate, "log-rule-rate", flowlog.DefaultLogRulePerSecond, "lines a second at most for each rule with action Log; 0 for no limit")
	f.StringVar(&c.logPrefix, "log-prefix", flowlog.DefaultLogPrefix, "prefix field of those lines: %t tier, %k kind, %n name, %p namespace/name of the policy")
	f.StringVar(&c.invalid, "conntrack-invalid", "drop", "what becomes of packets of protected pods that fit no flow: drop, or judge them like new flows")
	c.sources.flags(f)
	addKernelFlags(f, &c.kernelConfig)
	f.StringVar(&c.logFormat, "log-format", "auto", "json, console, or auto: console on a terminal")
	f.StringVar(&c.logLevel, "log-level", "info", "trace, debug, info, warn or error")
	f.DurationVar(&c.startWait, "start-wait", 5*time.Second, "how long packets wait after a start for the first policy; then they are dropped until there is one")
	f.BoolVar(&c.cleanup, "cleanup", false, "on a normal end remove all rules, so that nothing is enforced; by default they stay and new flows of protected pods are dropped")
	c.authz.register(f)
	c.listen.flags(f)
	c.exceptions.flags(f)
}

// check refuses what no start could make sense of, naming the flag.
func (c *runConfig) check() error {
	switch {
	case c.source == "" && c.kubeconfig == "":
		return usageError("--source or --kubeconfig is required: the directory of Kubernetes manifests, or the cluster, to enforce")
	case c.source != "" && c.kubeconfig != "":
		return usageError("--source and --kubeconfig: give one of them")
	case c.queues == 0:
		return usageError("--queues 0: want 1 or more")
	case int(c.queueFirst)+int(c.queues) > nfq.LockQueue:
		return usageError("--queue %d --queues %d: queue numbers end at %d; the one above says that a postern runs", c.queueFirst, c.queues, nfq.LockQueue-1)
	case c.queueLen == 0:
		return usageError("--queue-length 0: want 1 or more")
	case c.queueBytes < 64 || c.queueBytes > 65531:
		return usageError("--queue-copy %d: want 64 to 65531", c.queueBytes)
	case c.startWait < 0:
		return usageError("--start-wait %v: want 0 or more", c.startWait)
	case c.flowLogRate < 0:
		return usageError("--flow-log-rate %d: want 0 or more", c.flowLogRate)
	case c.flowLogInterval < 0 || c.flowLogInterval > 0 && c.flowLogInterval < time.Second || c.flowLogInterval > time.Hour:
		return usageError("--flow-log-interval %v: want 1s to 1h, or 0", c.flowLogInterval)
	case c.flowLogSample < 1:
		return usageError("--flow-log-sample %d: want 1 or more", c.flowLogSample)
	case c.flowLogCached < 0 || c.flowLogCached > 0 && c.flowLogCached < time.Second || c.flowLogCached > time.Hour:
		return usageError("--flow-log-cached %v: want 1s to 1h, or 0", c.flowLogCached)
	case c.logRuleRate < 0:
		return usageError("--log-rule-rate %d: want 0 or more", c.logRuleRate)
	case c.invalid != "drop" && c.invalid != "judge":
		return usageError("--conntrack-invalid %q: want drop or judge", c.invalid)
	}
	if _, err := zerolog.ParseLevel(c.logLevel); err != nil || c.logLevel == "" {
		return usageError("--log-level %q: want trace, debug, info, warn or error", c.logLevel)
	}
	if _, ok := flowLogChoices[c.flowLog]; !ok {
		return usageError("--flow-log %q: want all, denied or none", c.flowLog)
	}
	if _, ok := queueChoices[c.queueVia]; !ok {
		return usageError("--queue-via %q: want native, xt or auto", c.queueVia)
	}
	if _, ok := toHostChoices[c.toHost]; !ok {
		return usageError("--endpoint-to-host %q: want accept, drop or reject", c.toHost)
	}
	if _, err := nft.NewMarks(c.markMask); err != nil {
		return exitError{exitUsage, fmt.Errorf("--mark-mask: %w", err)}
	}
	for _, check := range []func() error{c.authz.check, c.sources.check, c.listen.check, c.exceptions.check, c.kernelConfig.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

var flowLogChoices = map[string]flowlog.Which{"all": flowlog.All, "denied": flowlog.Denied, "none": flowlog.None}

var toHostChoices = map[string]nft.ToHost{"accept": nft.ToHostAccept, "drop": nft.ToHostDrop, "reject": nft.ToHostReject}

// queueChoices maps to what is required; ViaNone leaves it to the probe.
var queueChoices = map[string]nft.QueueVia{"native": nft.ViaNative, "xt": nft.ViaTarget, "auto": nft.ViaNone}

// hexadecimal is a flag's number that is read in any base and shown in base 16.
type hexadecimal uint32

func (h *hexadecimal) String() string { return fmt.Sprintf("%#x", uint32(*h)) }

func (h *hexadecimal) Set(text string) error {
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		return errors.New("want a number of 32 bits, such as 0xff000000")
	}
	*h = hexadecimal(n)
	return nil
}

func (h *hexadecimal) Type() string { return "hex" }
