//go:build systemd

package systemd

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/test/lab"
)

const examples = "../../docs/examples/service-accounts/"

// The two versions that are installed one after the other.
const (
	version1 = "1.0.0"
	version2 = "1.0.1-rc.1"
)

// patience is for what must come, on however busy a machine.
const patience = time.Minute

// world is the machine, and the pods around it.
type world struct {
	*testing.T
	*Machine
	*guide
	node     *lab.Host
	pods     map[string]*lab.Host
	packages string
	before   state // before anything of postern was there
	ports    *int  // how many streams have sent to
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// run runs a command in the machine, which must succeed.
func (w *world) run(args ...string) string {
	w.Helper()
	out, err := w.Exec(args...)
	w.check(err)
	return out
}

func (w *world) write(path, text string) {
	w.Helper()
	w.check(w.Write(path, text))
}

// property is one of the unit's.
func (w *world) property(name string) string {
	w.Helper()
	return strings.TrimSpace(w.run("systemctl", "show", "--value", "-p", name, "postern"))
}

func (w *world) wait(what string, done func() bool) {
	w.Helper()
	if err := w.await(patience, func() (bool, error) { return done(), nil }); err != nil {
		log, _ := w.Exec("journalctl", "-u", "postern", "-n", "30", "--no-pager", "-o", "cat")
		w.Fatalf("%s: %v; the unit's log:\n%s", what, err, log)
	}
}

// again waits until another process than pid is ready, and gives its number.
func (w *world) again(pid string) (next string) {
	w.Helper()
	w.wait("another process is ready", func() bool {
		next = w.property("MainPID")
		return next != "0" && next != pid && w.property("ActiveState") == "active"
	})
	return next
}

// reaches checks with real connections, over both families, whether one pod reaches
// another.
func (w *world) reaches(from, to string, want bool) {
	w.Helper()
	src, dst := w.pods[from], w.pods[to]
	server, err := dst.Serve(5432)
	w.check(err)
	defer server.Close()
	for _, a := range dst.Addrs {
		limit := patience
		if !want {
			limit = 1500 * time.Millisecond // longer than a SYN is sent again
		}
		err := src.Exchange("tcp", netip.AddrPortFrom(a, 5432), []byte("hello"), limit)
		if (err == nil) != want {
			w.Errorf("%s to %s at %v: %v, want it to pass: %v", from, to, a, err, want)
		}
	}
}

// load sends from a pod that may and from one that may not, until do has ended, and
// checks that every packet of the one and none of the other has come through.
func (w *world) load(perSecond int, do func()) {
	w.Helper()
	at, err := w.pods["prod-engineering/db"].Sniff()
	w.check(err)
	defer func() { w.check(at.Stop()) }()
	asked := w.counter("queued")
	began := time.Now()
	allowed, err := StartStream(w.pods["prod-engineering/api"], w.pods["prod-engineering/db"], *w.ports, perSecond)
	w.check(err)
	denied, err := StartStream(w.pods["prod-engineering/reports"], w.pods["prod-engineering/db"], *w.ports, perSecond)
	w.check(err)
	do()
	took := time.Since(began)
	sent, err := allowed.End()
	w.check(err)
	tried, err := denied.End()
	w.check(err)
	*w.ports += max(sent, tried)/2 + 1
	arrived, twice := 0, 0
	if err := w.await(patience, func() (bool, error) { arrived, twice = allowed.Arrived(at); return arrived == sent, nil }); err != nil {
		w.Errorf("%d of %d packets of allowed flows arrived", arrived, sent)
	}
	leaked, _ := denied.Arrived(at)
	if leaked != 0 {
		w.Errorf("%d of %d packets of denied flows arrived", leaked, tried)
	}
	if twice != 0 {
		w.Errorf("%d packets arrived twice", twice)
	}
	if n := w.counter("queued") - asked; n < sent {
		w.Errorf("%d packets met the queue and %d allowed ones were sent: this tests something else", n, sent)
	}
	if sent < 200 || tried < 200 {
		w.Errorf("only %d and %d packets were sent", sent, tried)
	}
	w.Logf("%d of %d allowed packets arrived and %d of %d denied ones, in %.1f s: %.0f a second each",
		arrived, sent, leaked, tried, took.Seconds(), float64(sent)/took.Seconds())
}

// counter is the packets of a counter of the table.
func (w *world) counter(name string) int {
	w.Helper()
	out := w.run("nft", "list", "counter", "inet", "postern", name)
	f := strings.Fields(out[strings.Index(out, "packets"):])
	n, err := strconv.Atoi(f[1])
	w.check(err)
	return n
}

// TestSystemd is one story on one machine: each part begins with what the last has left.
func TestSystemd(t *testing.T) {
	w := &world{T: t, packages: t.TempDir(), ports: new(int)}
	var err error
	w.guide, err = readGuide()
	w.check(err)
	w.build()
	l, err := lab.New()
	w.check(err)
	defer func() { w.check(l.Close()) }()
	w.node = l.Node
	w.pods, err = l.AddPods(examples)
	w.check(err)
	w.Machine, err = New(t.TempDir(), l.Path(l.Node), w.packages)
	w.check(err)
	defer func() { w.check(w.Close()) }()
	w.check(w.Boot())
	defer func() { w.check(w.Halt()) }()
	w.write("/etc/apt/apt.conf.d/90yes", `APT::Get::Assume-Yes "true";`)
	w.before = w.state()

	for _, part := range []struct {
		name string
		run  func(w *world)
	}{
		{"install", (*world).install},
		{"manual", (*world).manual},
		{"refuses", (*world).refuses},
		{"enforces", (*world).enforces},
		{"hardened", (*world).hardened},
		{"reload", (*world).reload},
		{"restarts", (*world).restarts},
		{"hangs", (*world).hangs},
		{"crashes", (*world).crashes},
		{"upgrade", (*world).upgrade},
		{"order", (*world).order},
		{"boot", (*world).boot},
		{"cluster", (*world).cluster},
		{"stop", (*world).stop},
		{"purge", (*world).purge},
		{"rpm", (*world).rpm},
	} {
		began := time.Now()
		if !t.Run(part.name, func(t *testing.T) {
			of := *w
			of.T = t
			part.run(&of)
		}) && t.Failed() {
			log, _ := w.Exec("journalctl", "-n", "60", "--no-pager", "-o", "short-monotonic")
			t.Fatalf("%s failed; the end of the machine's log:\n%s", part.name, log)
		}
		t.Logf("%s: %.1f s", part.name, time.Since(began).Seconds())
	}
	for line, run := range w.lines {
		if !run {
			t.Errorf("docs/install.md says, and nothing here has tried: %s", line)
		}
	}
}

// build makes the packages, and those of the first version twice.
func (w *world) build() {
	w.Helper()
	w.followed("make packages")
	again := w.TempDir()
	for _, b := range []struct{ version, out string }{{version1, w.packages}, {version1, again}, {version2, w.packages}} {
		cmd := exec.Command("make", "-C", "../..", "packages", "VERSION="+b.version, "OUT="+b.out)
		if out, err := cmd.CombinedOutput(); err != nil {
			w.Fatalf("build: %v\n%s", err, out)
		}
	}
	same, err := filepath.Glob(again + "/postern*")
	if err != nil || len(same) != 2 {
		w.Fatalf("built %v, %v", same, err)
	}
	for _, f := range same {
		a, err := os.ReadFile(f)
		w.check(err)
		b, err := os.ReadFile(filepath.Join(w.packages, filepath.Base(f)))
		w.check(err)
		if sha256.Sum256(a) != sha256.Sum256(b) {
			w.Errorf("two builds of %s differ", filepath.Base(f))
		}
	}
}

// deb is the path of a version's package in the machine.
func (w *world) deb(version string) string {
	return "/packages/postern_" + strings.Replace(version, "-", "~", 1) + "_amd64.deb"
}

func (w *world) install() {
	w.offer(version1)
	out := w.follow("apt-get install ./bin/postern_*_amd64.deb")
	if !strings.Contains(out, "enforces nothing yet") {
		w.Errorf("it does not say what to do next: %s", out)
	}
	if got := w.run("postern", "version"); !strings.HasPrefix(got, "postern "+version1+" ") {
		w.Errorf("version: %s", got)
	}
	if got := w.run("getent", "passwd", "postern"); !strings.HasSuffix(got, ":/usr/sbin/nologin\n") {
		w.Errorf("user: %s", got)
	}
	if got, _ := w.Exec("systemctl", "is-enabled", "postern"); got != "disabled\n" {
		w.Errorf("enabled: %s", got)
	}
	if got := w.run("sed", "-n", "/^[^#]/p", "/etc/postern/postern.yaml"); got != "" {
		w.Errorf("the settings that come with the package change defaults: %s", got)
	}
	if got := w.run("dpkg-query", "-W", "-f", "${Conffiles}", "postern"); strings.Count(got, "/etc/") != 2 {
		w.Errorf("conffiles: %s", got)
	}
	w.run("systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/postern.service")
}

// manual: pages and completions are there, and of use.
func (w *world) manual() {
	w.run("sh", "-c", "for f in /usr/share/man/man1/postern*.gz; do zcat $f | mandoc -T lint -W error || exit; done")
	if got := w.run("sh", "-c", `zcat /usr/share/man/man1/postern-run.1.gz | mandoc | sed 's/.\x08//g'`); !strings.Contains(got, "--kubeconfig") {
		w.Errorf("man postern-run: %s", got)
	}
	got := w.run("bash", "-c", `source /usr/share/bash-completion/completions/postern; complete -p postern; postern __complete conf ''`)
	if !strings.Contains(got, "__start_postern") {
		w.Errorf("bash completion: %s", got)
	}
	for _, f := range []string{"/usr/share/zsh/vendor-completions/_postern", "/usr/share/fish/vendor_completions.d/postern.fish", "/usr/share/doc/postern/operate.md", "/usr/share/doc/postern/copyright"} {
		w.run("test", "-s", f)
	}
}

// refuses: without settings it says what is missing and is not started over and over.
func (w *world) refuses() {
	if _, err := w.Exec("systemctl", "start", "postern"); err == nil {
		w.Error("it starts without settings")
	}
	if r, s, n := w.property("Result"), w.property("ExecMainStatus"), w.property("NRestarts"); r != "exit-code" || s != "2" || n != "0" {
		w.Errorf("result %s, exit code %s, started again %s times", r, s, n)
	}
	if log := w.run("journalctl", "-u", "postern", "-o", "cat"); !strings.Contains(log, "--source or --kubeconfig is required") {
		w.Errorf("log: %s", log)
	}
}

// enforces: the unit is active when policy is in force, and not before.
func (w *world) enforces() {
	files, err := filepath.Glob(examples + "*")
	w.check(err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		w.check(err)
		w.write("/etc/postern/manifests/"+filepath.Base(f), string(text))
	}
	w.follow("echo 'source: /etc/postern/manifests' >>/etc/postern/postern.yaml")
	w.follow("systemctl enable --now postern")
	if got := w.follow("postern status"); !strings.HasPrefix(got, "enforcing") {
		w.Errorf("it is active, and status says %s", got)
	}
	if got := w.property("User") + w.run("ps", "-o", "user=", "-p", w.property("MainPID")); got != "posternpostern\n" {
		w.Errorf("it runs as %s", got)
	}
	w.reaches("prod-engineering/api", "prod-engineering/db", true)
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)
}

func (w *world) hardened() {
	out := w.run("systemd-analyze", "security", "--threshold=20", "postern.service")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	w.Log(lines[len(lines)-1])
	status := w.run("cat", "/proc/"+w.property("MainPID")+"/status")
	for _, want := range []string{"CapEff:\t0000000000001000", "CapBnd:\t0000000000001000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want+"\n") {
			w.Errorf("not %q: %s", want, status)
		}
	}
}

// reload: settings are read again by the process that is there, and not used if they
// make no sense.
func (w *world) reload() {
	pid, settings := w.property("MainPID"), w.run("cat", "/etc/postern/postern.yaml")
	for _, r := range []struct{ more, says string }{
		{"noSuchKey: 1\n", "the settings cannot be reloaded"},
		{"", "reloaded the settings"},
	} {
		w.write("/etc/postern/postern.yaml", settings+r.more)
		w.run("systemctl", "reload", "postern")
		w.wait(r.says, func() bool { return strings.Contains(w.run("journalctl", "-u", "postern", "-o", "cat"), r.says) })
	}
	if w.property("MainPID") != pid || w.property("ActiveState") != "active" {
		w.Error("a reload ended the process")
	}
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)
}

// restarts: neither a restart nor a crash loses a packet or lets one through.
func (w *world) restarts() {
	stored := w.property("NFileDescriptorStore")
	w.load(1000, func() {
		pid := w.property("MainPID")
		for i := range 40 {
			time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond)
			if i%2 == 0 {
				w.follow("systemctl restart postern")
			} else {
				w.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "postern")
			}
			pid = w.again(pid)
		}
		for _, sig := range []string{"ABRT", "SEGV"} {
			w.run("systemctl", "kill", "--kill-who=main", "--signal="+sig, "postern")
			pid = w.again(pid)
		}
	})
	if n := w.property("NFileDescriptorStore"); n != stored || n == "0" {
		w.Errorf("%s descriptors are stored, and %s were before", n, stored)
	}
}

// hangs: a process that answers no packets is replaced. Some packets wait for all of the
// watchdog's time.
func (w *world) hangs() {
	w.load(100, func() {
		pid := w.property("MainPID")
		w.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "postern")
		w.again(pid)
	})
	if log := w.run("journalctl", "-u", "postern", "-o", "cat", "--no-pager"); !strings.Contains(log, "Watchdog timeout") {
		w.Error("it was not the watchdog")
	}
}

// crashes: a process that ends again and again before it is ready is started until it
// can, and packets wait.
func (w *world) crashes() {
	usual := w.run("cat", "/etc/default/postern")
	w.load(200, func() {
		pid := w.property("MainPID")
		before, err := strconv.Atoi(w.property("NRestarts"))
		w.check(err)
		w.write("/etc/default/postern", "POSTERN_SOCKET=/proc/1/no-such-directory/socket\n")
		w.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "postern")
		w.wait("ten crashes", func() bool {
			n, err := strconv.Atoi(w.property("NRestarts"))
			return err == nil && n >= before+10
		})
		w.write("/etc/default/postern", usual)
		w.again(pid)
	})
}

// upgrade: another version takes over without losing a packet, and keeps settings.
func (w *world) upgrade() {
	// One that cannot use the settings does not take over.
	usual := w.run("cat", "/etc/default/postern")
	pid := w.property("MainPID")
	w.write("/etc/default/postern", usual+"POSTERN_NO_SUCH_SETTING=1\n")
	out := w.run("dpkg", "--force-confold", "--install", w.deb(version1))
	if !strings.Contains(out, "refuses the settings") || w.property("MainPID") != pid {
		w.Errorf("process %s, and %s now: %s", pid, w.property("MainPID"), out)
	}
	w.write("/etc/default/postern", usual)

	settings := w.run("cat", "/etc/postern/postern.yaml")
	w.offer(version2)
	w.load(1000, func() {
		w.follow("apt-get install ./bin/postern_*_amd64.deb")
		w.again(pid)
	})
	if got := w.run("postern", "version"); !strings.HasPrefix(got, "postern "+version2+" ") {
		w.Errorf("version: %s", got)
	}
	if got := w.run("readlink", "/proc/"+w.property("MainPID")+"/exe"); got != "/usr/bin/postern\n" {
		w.Errorf("it runs %s", got)
	}
	if got := w.run("cat", "/etc/postern/postern.yaml"); got != settings {
		w.Errorf("settings changed: %s", got)
	}
	w.reaches("prod-engineering/api", "prod-engineering/db", true)
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)
}

// kubelet notes how it found postern when it started.
const kubelet = `[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'systemctl is-active postern >/var/tmp/found; systemctl is-active network-pre.target >>/var/tmp/found; true'
[Install]
WantedBy=multi-user.target
`

// order: who waits for postern waits until policy is in force, but not for ever.
func (w *world) order() {
	w.write("/etc/systemd/system/kubelet.service", kubelet)
	w.write("/etc/systemd/system/postern.service.d/short.conf", "[Unit]\nJobRunningTimeoutSec=3s\n")
	w.run("systemctl", "daemon-reload")
	w.run("systemctl", "stop", "postern")
	w.run("systemctl", "start", "postern", "kubelet")
	if got := w.run("cat", "/var/tmp/found"); !strings.HasPrefix(got, "active\n") {
		w.Errorf("kubelet started when postern was %s", got)
	}
	w.run("systemctl", "stop", "postern", "kubelet")
	// One that was told to wait for as long as it takes.
	w.write("/etc/systemd/system/kubelet.service.d/wait.conf", w.unit("ExecStartPre="))
	w.run("systemctl", "daemon-reload")
	if _, err := w.Exec("systemctl", "start", "kubelet"); err == nil {
		w.Error("kubelet started without postern")
	}
	w.run("systemctl", "start", "postern", "kubelet")
	w.run("systemctl", "stop", "postern", "kubelet")
	w.run("rm", "-r", "/etc/systemd/system/kubelet.service.d")
	w.run("systemctl", "daemon-reload")

	w.write("/etc/postern/manifests/broken.yaml", "kind: [")
	if _, err := w.Exec("systemctl", "start", "postern", "kubelet"); err == nil {
		w.Error("postern could not become ready, and the start succeeded")
	}
	if got := w.run("cat", "/var/tmp/found"); !strings.HasPrefix(got, "activating\n") {
		w.Errorf("kubelet started when postern was %s", got)
	}
	w.run("rm", "/etc/postern/manifests/broken.yaml")
	w.again("0")
	w.run("rm", "-r", "/etc/systemd/system/postern.service.d")
	w.run("systemctl", "daemon-reload")
}

// boot: after a boot policy is in force before the network is set up and before a
// kubelet starts.
func (w *world) boot() {
	w.run("systemctl", "enable", "kubelet")
	w.run("rm", "/var/tmp/found")
	w.check(w.Halt())
	// What a boot of a real machine would begin without.
	w.check(command("nsenter", "--net="+w.netns, "nft", "delete", "table", "inet", "postern"))
	w.check(w.Boot())
	if got := w.run("cat", "/var/tmp/found"); got != "active\nactive\n" {
		w.Errorf("kubelet found postern and network-pre.target %s", got)
	}
	at := func(unit string) int {
		n, err := strconv.Atoi(strings.TrimSpace(w.run("systemctl", "show", "--value", "-p", "ActiveEnterTimestampMonotonic", unit)))
		w.check(err)
		return n
	}
	if p, n := at("postern.service"), at("network-pre.target"); p == 0 || p > n {
		w.Errorf("postern was ready %d µs after network-pre.target", p-n)
	}
	w.run("systemctl", "disable", "--now", "kubelet")
	w.run("rm", "/etc/systemd/system/kubelet.service", "/var/tmp/found")
	w.reaches("prod-engineering/api", "prod-engineering/db", true)
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)
}

// stop: closed, and said so.
func (w *world) stop() {
	w.run("systemctl", "stop", "postern")
	if out, err := w.Exec("postern", "status"); err == nil || !strings.Contains(out, "new flows of protected pods are dropped") {
		w.Errorf("status: %s", out)
	}
	// Nobody has gone this way within the last minute.
	w.reaches("prod-engineering/auth", "prod-engineering/db", false)
	w.reaches("prod-engineering/reports", "prod-engineering/db", false)
	w.run("systemctl", "start", "postern")
	w.reaches("prod-engineering/auth", "prod-engineering/db", true)
}

// purge: without postern the host is as it was before.
func (w *world) purge() {
	if out, err := w.Exec("postern", "cleanup"); err == nil {
		w.Errorf("cleanup beside a daemon that runs: %s", out)
	}
	// A mark of somebody else's on a flow that postern marks too.
	w.run("nft", "add table inet other; add chain inet other c { type filter hook forward priority 0; }; add rule inet other c ct mark set ct mark or 0x5")
	w.reaches("prod-engineering/auth", "prod-engineering/db", true)
	w.run("nft", "delete", "table", "inet", "other")
	both := 0
	for mark := range w.marks() {
		if mark&0xff000000 != 0 && mark&0xff == 5 {
			both++
		}
	}
	if both == 0 {
		w.Error("no flow has a mark of postern's and of somebody else's")
	}
	w.follow("apt-get remove postern")
	if out, err := w.Exec("postern", "status"); err == nil {
		w.Errorf("status: %s", out)
	}
	w.reaches("prod-engineering/reports", "prod-engineering/db", true)
	w.run("test", "-e", "/etc/postern/postern.yaml")
	w.follow("apt-get purge postern")
	w.unchanged()
	if marks := w.marks(); len(marks) != 2 || marks[0] == 0 || marks[5] == 0 {
		w.Errorf("flows by their marks: %v", marks)
	}
}

// marks counts flows by their mark.
func (w *world) marks() map[uint64]int {
	w.Helper()
	n := map[uint64]int{}
	for line := range strings.Lines(w.run("conntrack", "-L")) {
		if _, rest, ok := strings.Cut(line, "mark="); ok {
			mark, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 32)
			w.check(err)
			n[mark]++
		}
	}
	return n
}

// rpm: the other package installs and removes the same. Debian's rpm knows of no other
// packages, so it is not asked about them.
func (w *world) rpm() {
	rpm := []string{"rpm", "--dbpath=/var/lib/rpm", "--nodeps"}
	w.run(append(rpm, "--install", "/packages/postern-"+version1+"-1.x86_64.rpm")...)
	w.write("/etc/postern/manifests/pods.yaml", "")
	w.write("/etc/default/postern", "POSTERN_SOURCE=/etc/postern/manifests\n")
	w.run("systemctl", "start", "postern")
	pid := w.property("MainPID")
	w.run(append(rpm, "--upgrade", "/packages/postern-"+strings.Replace(version2, "-", "~", 1)+"-1.x86_64.rpm")...)
	w.again(pid)
	if got := w.run("cat", "/etc/default/postern"); got != "POSTERN_SOURCE=/etc/postern/manifests\n" {
		w.Errorf("settings: %s", got)
	}
	w.run(append(rpm, "--erase", "postern")...)
	// What somebody changed is rpm's to keep; and directories that all hosts with rpm have
	// are nobody's here.
	w.run("rm", "-r", "/etc/postern", "/etc/default/postern.rpmsave", "/usr/share/zsh/site-functions", "/usr/share/fish")
	w.unchanged()
}

// state is what postern might leave behind.
type state struct {
	files             map[string]bool
	accounts, ruleset string
	units             string
}

// state looks at the machine. Logs, and the books that apt, dpkg and rpm keep, do not count.
func (w *world) state() (s state) {
	w.Helper()
	s.files = map[string]bool{}
	list := w.run("find", "/", "-xdev", "(", "-path", "/var/log", "-o", "-path", "/var/lib/dpkg", "-o", "-path", "/var/lib/rpm", "-o", "-path", "/var/lib/apt", "-o", "-path", "/var/cache/apt", "-o",
		"-path", "/var/lib/systemd", "-o", "-path", "/tmp", "-o", "-path", "/var/tmp", ")", "-prune", "-o", "-print")
	list += w.run("sh", "-c", "find /run -name '*postern*'")
	for f := range strings.Lines(list) {
		s.files[strings.TrimSpace(f)] = true
	}
	for _, f := range []string{"passwd", "group", "shadow", "gshadow"} {
		s.accounts += w.run("cat", "/etc/"+f)
	}
	s.ruleset = w.run("nft", "list", "ruleset")
	s.units = w.run("sh", "-c", "systemctl list-units --all --plain --no-legend '*postern*'; systemctl list-unit-files --plain --no-legend '*postern*'; true")
	return s
}

// unchanged checks that all is as before postern was there.
func (w *world) unchanged() {
	w.Helper()
	now := w.state()
	for f := range now.files {
		if !w.before.files[f] {
			w.Errorf("left behind: %s", f)
		}
	}
	for f := range w.before.files {
		if !now.files[f] {
			w.Errorf("gone: %s", f)
		}
	}
	if now.accounts != w.before.accounts {
		w.Errorf("accounts are\n%s\nand were\n%s", now.accounts, w.before.accounts)
	}
	if now.ruleset != w.before.ruleset {
		w.Errorf("rules are left: %s", now.ruleset)
	}
	if now.units != w.before.units {
		w.Errorf("units are left: %s", now.units)
	}
	if out, err := w.Exec("pgrep", "-x", "postern"); err == nil {
		w.Errorf("a process is left: %s", out)
	}
	if f, _ := w.Exec("cat", "/proc/net/netfilter/nfnetlink_queue"); len(bytes.TrimSpace([]byte(f))) != 0 {
		w.Errorf("a queue is left: %s", f)
	}
}
