package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// suite is a test binary that the guest runs.
type suite struct {
	dir string // of the package, below the module's root
	run string // the tests, as for go test -run
}

// suites are what depends on the kernel, end to end: what passes and what does not,
// established flows, unusual packets, restarts, damage, other tools. What depends on user
// space alone is left to the machine that runs this (logs, metrics, commands, the keeper of the
// socket), and so is what needs more than a guest has: an API server, Envoy, a network to
// follow the guide in. Floods would measure the emulator.
var suites = []suite{
	{"filter/nfq", "."},
	{"filter/nft", "."},
	{"conntrack", "."},
	{"test/lab", "."},
	{"test/e2e", "^Test(Examples|EndpointToHost|Tunnels|EstablishedStaysInKernel|DaemonGone|Cleanup|Takeover|Change|MarksOfOthers|" +
		"Invalid|Untracked|Protocols|OddPackets|Fragments|QueueVia|" +
		"Revocation|CacheAnswers|FullCache|KeepEstablished|KeptFlowsAreNotQueued|EpochsComeRound|ForgedSource|ForgedIdentity|NewPodIsNotCut|" +
		"Packets|Zones|Neighbours|PathMTU|SegmentsInOne|Errors|Expected|OtherTables|BridgedPods|QueueOverflow|" + // cases
		"AddressReuse|IdleFlowsAreSwept|TakeoverWithConntrack|FlowEnds|CachedFlowsAreSeen|" + // conntrack
		"FlushRuleset|DamagedTable|QueueFull|NoDaemon|Undecodable|HoldExpires|HostsOwnAddress|ServiceAddresses|Masquerade)$"},
}

func main() {
	cache := flag.String("cache", defaultCache(), "directory for kernel and image")
	// KVM may be there and yet not do, above all inside another virtual machine.
	accel := flag.String("accel", "tcg,thread=multi", "qemu's accelerator; kvm is much faster where it works")
	limit := flag.Duration("limit", 10*time.Minute, "how long the guest may take")
	run := flag.String("run", "", "run the end-to-end tests whose name matches instead of those chosen")
	flag.Parse()
	if *run != "" {
		suites = []suite{{"test/e2e", *run}}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := test(ctx, *cache, *accel, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func defaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "postern-vm")
}

func test(ctx context.Context, cache, accel string, limit time.Duration) error {
	root, err := output("go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	k, err := fetchKernel(cache)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	fmt.Println("vm: kernel", k.release)
	image, err := buildImage(strings.TrimSpace(root), cache, k)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = boot(ctx, accel, k.image, image)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = errors.Join(fmt.Errorf("the guest was not done after %v", limit), err)
	}
	if err == nil {
		fmt.Printf("vm: all passed on %s in %v\n", k.release, time.Since(start).Round(time.Second))
	}
	return err
}

// output runs a program and gives what it writes.
func output(program string, args ...string) (string, error) {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, exit.Stderr)
		}
		return "", fmt.Errorf("%s: %w (test/deps.sh vm installs what is missing)", program, err)
	}
	return string(out), nil
}
