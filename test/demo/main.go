// Command demo shows postern at work on one machine: it makes a node and some pods
// of network namespaces, enforces the documented service account examples with
// real packets, and changes a service account's label while the daemon runs. It
// exits with 1 if what the pods could reach ever differs from what policy says.
//
// It needs root. Everything it makes is removed at its end, also after Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/postern-project/postern/filter/explain"
	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/test/lab"
)

const port = 5432

func main() {
	program := flag.String("program", "bin/postern", "the postern binary")
	manifests := flag.String("manifests", "docs/examples/service-accounts", "directory of manifests to enforce")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, *program, *manifests, os.Stdout)
	switch {
	case ctx.Err() != nil:
		fmt.Println("\nInterrupted; everything was removed.")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program, manifests string, out io.Writer) (err error) {
	d := &demo{Context: ctx, out: out}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == "" {
		d.colour = true
	}
	tmp, err := os.MkdirTemp("", "postern-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	dir := filepath.Join(tmp, "manifests")
	if err := os.CopyFS(dir, os.DirFS(manifests)); err != nil {
		return err
	}

	d.title("A node and its pods, each a network namespace")
	l, err := lab.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := d.build(l, dir); err != nil {
		return err
	}

	d.title("postern run, with these policies")
	d.policies(dir)
	daemon, err := l.Node.StartDaemon(program, "run", "--source", dir, "--socket", filepath.Join(tmp, "postern.sock"), "--flow-log", "all", "--flow-log-rate", "0", "--flow-log-interval", "0", "--log-format", "json", "--cleanup")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.Stop(syscall.SIGTERM)) }()
	if _, err := daemon.WaitEnforcing(0); err != nil {
		return err
	}

	d.title("Who reaches whom: every pod opens a TCP connection to every other")
	if err := d.compare(dir, true); err != nil {
		return err
	}

	d.title("Some of the decisions, as postern logged them")
	d.decisions(daemon, 0, "")

	d.title("Now the account reports-sa gets the label app=web-frontend")
	mark := len(daemon.Log(0))
	if err := relabel(filepath.Join(dir, "serviceaccounts.yaml"), "{app: reports}", "{app: web-frontend}"); err != nil {
		return err
	}
	start := time.Now()
	if _, err := daemon.WaitEnforcing(mark); err != nil {
		return err
	}
	fmt.Fprintf(out, "in force %d ms after the file was written; no pod was touched\n\n", time.Since(start).Milliseconds())
	if err := d.compare(dir, false); err != nil {
		return err
	}
	if !d.flipped {
		return errors.New("the label changed and no verdict did")
	}
	d.decisions(daemon, mark, "prod-engineering/reports")

	d.title("Result")
	if d.differences > 0 {
		return fmt.Errorf("reality and policy differ in %d of %d connections", d.differences, d.tried)
	}
	fmt.Fprintf(out, "%d connections over IPv4 and IPv6, each as policy says.\n", d.tried)
	return nil
}

type demo struct {
	context.Context
	out    io.Writer
	colour bool

	pods  map[string]*lab.Host
	names []string // sorted

	before             map[pair]bool // what was reached at the last comparison
	flipped            bool
	tried, differences int
}

type pair struct{ from, to string }

func (d *demo) build(l *lab.Lab, dir string) (err error) {
	s, err := lab.Snapshot(dir)
	if err != nil {
		return err
	}
	if d.pods, err = l.AddPods(dir); err != nil {
		return err
	}
	for _, e := range s.Endpoints {
		name := e.Namespace + "/" + e.Name
		d.names = append(d.names, name)
		h := d.pods[name]
		if _, err := h.Serve(port); err != nil {
			return err
		}
		fmt.Fprintf(d.out, "  %-26s %-13s %-15s account %s\n", name, h.Addr4(), h.Addr6(), e.ServiceAccount)
	}
	slices.Sort(d.names)
	return d.Err()
}

func (d *demo) policies(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "policy-*.yaml"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if comment, ok := strings.CutPrefix(line, "# "); ok {
				fmt.Fprint(d.out, "  ", comment)
			}
		}
	}
}

// compare has every pod connect to every other, over both families, and holds what
// came through against what the explainer says.
func (d *demo) compare(dir string, whole bool) error {
	reached := d.connectAll()
	if err := d.Err(); err != nil {
		return err
	}
	said, err := d.policySays(dir)
	if err != nil {
		return err
	}
	over4, over6 := map[pair]bool{}, map[pair]bool{}
	for k, ok := range reached {
		if k.six {
			over6[k.pair] = ok
		} else {
			over4[k.pair] = ok
		}
		d.tried++
		if ok != said[k.pair] {
			d.differences++
			fmt.Fprintf(d.out, "%s %s -> %s (ipv6: %v): reached %v, policy says %v\n", d.paint(31, "DIFFERENT"), k.from, k.to, k.six, ok, said[k.pair])
		}
	}
	if whole {
		d.tables("what came through (IPv4)", over4, "what policy says", said)
		d.tables("what came through (IPv6)", over6, "", nil)
	}
	for p, ok := range over4 {
		if was, known := d.before[p]; known && was != ok {
			d.flipped = true
			fmt.Fprintf(d.out, "  %s -> %s: %s, and was %s; policy says %s\n", p.from, p.to, d.verdict(ok), d.verdict(was), d.verdict(said[p]))
		}
	}
	d.before = over4
	return nil
}

type attempt struct {
	pair
	six bool
}

func (d *demo) connectAll() map[attempt]bool {
	var mu sync.Mutex
	var all sync.WaitGroup
	reached := map[attempt]bool{}
	for _, from := range d.names {
		for _, to := range d.names {
			for _, six := range []bool{false, true} {
				if from == to {
					continue
				}
				all.Go(func() {
					if d.Err() != nil {
						return
					}
					dst := netip.AddrPortFrom(d.pods[to].Addr4(), port)
					if six {
						dst = netip.AddrPortFrom(d.pods[to].Addr6(), port)
					}
					err := d.pods[from].Exchange("tcp", dst, []byte("hello"), 2*time.Second)
					mu.Lock()
					reached[attempt{pair{from, to}, six}] = err == nil
					mu.Unlock()
				})
			}
		}
	}
	all.Wait()
	return reached
}

func (d *demo) policySays(dir string) (map[pair]bool, error) {
	s, err := lab.Snapshot(dir)
	if err != nil {
		return nil, err
	}
	e := explain.New(s, explain.Options{})
	said := map[pair]bool{}
	for _, from := range d.names {
		for _, to := range d.names {
			t := flow.Tuple{Src: d.pods[from].Addr4(), Dst: d.pods[to].Addr4(), Proto: flow.TCP, Ported: true, SrcPort: 40000, DstPort: port}
			said[pair{from, to}] = e.Explain(t).Verdict == explain.Allow
		}
	}
	return said, nil
}

// decisions prints what was logged from line number from on about flows of one pod,
// or, if none is named, two examples of each kind of decision.
func (d *demo) decisions(daemon *lab.Daemon, from int, pod string) {
	seen, examples := map[string]bool{}, map[string]int{}
	for _, l := range daemon.Log(from) {
		if l.Text("message") != "flow" || pod != "" && l.Text("src_pod") != pod {
			continue
		}
		why := l.Text("reason")
		if l.Text("policy") != "" {
			why = fmt.Sprintf("%s %s, rule %s", l.Text("policy_kind"), l.Text("policy"), l.Text("rule"))
		} else if l.Text("tier") != "" {
			why += " " + l.Text("tier")
		}
		why = l.Text("direction") + ": " + why
		text := fmt.Sprintf("  %s  %s (%s) -> %s (%s) %s/%s  %s", d.verdict(l.Text("verdict") == "allow"),
			l.Text("src_pod"), l.Text("src_account"), l.Text("dst_pod"), l.Text("dst_account"), l.Text("proto"), l.Text("dport"), why)
		kind := l.Text("verdict") + why
		if seen[text] || pod == "" && examples[kind] == 2 {
			continue
		}
		seen[text] = true
		examples[kind]++
		fmt.Fprintln(d.out, text)
	}
}

// tables prints one or two matrices side by side: rows send, columns receive.
func (d *demo) tables(title1 string, m1 map[pair]bool, title2 string, m2 map[pair]bool) {
	width := 0
	for _, n := range d.names {
		width = max(width, len(n))
	}
	head := ""
	for i := range d.names {
		head += fmt.Sprintf(" %d", i+1)
	}
	cells := func(from string, m map[pair]bool) (row string) {
		for _, to := range d.names {
			switch {
			case from == to:
				row += "  "
			case m[pair{from, to}]:
				row += " " + d.paint(32, "✓")
			default:
				row += " " + d.paint(31, "✗")
			}
		}
		return row
	}
	gap := strings.Repeat(" ", 8)
	fmt.Fprintf(d.out, "  %-*s     %s", width, "", title1)
	if m2 != nil {
		fmt.Fprintf(d.out, "%s%s", strings.Repeat(" ", max(1, len(head)+len(gap)-len(title1))), title2)
	}
	fmt.Fprintf(d.out, "\n  %-*s    %s", width, "", head)
	if m2 != nil {
		fmt.Fprint(d.out, gap, head)
	}
	fmt.Fprintln(d.out)
	for i, from := range d.names {
		fmt.Fprintf(d.out, "  %2d %-*s %s", i+1, width, from, cells(from, m1))
		if m2 != nil {
			fmt.Fprint(d.out, gap, cells(from, m2))
		}
		fmt.Fprintln(d.out)
	}
	fmt.Fprintln(d.out)
}

func (d *demo) verdict(ok bool) string {
	if ok {
		return d.paint(32, "allow")
	}
	return d.paint(31, "deny ")
}

func (d *demo) title(text string) {
	fmt.Fprintf(d.out, "\n%s\n", d.paint(1, text))
}

func (d *demo) paint(code int, text string) string {
	if !d.colour {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
}

func relabel(file, old, new string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), old) {
		return fmt.Errorf("%s does not hold %q", file, old)
	}
	tmp := filepath.Join(filepath.Dir(file), ".new")
	if err := os.WriteFile(tmp, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
