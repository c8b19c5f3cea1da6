package kernel

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/test/lab"
)

const manifests = "../../docs/examples/service-accounts"

// BenchmarkEstablished sends over one connection from api to db, which a policy
// protects. With postern its first packet is decided and the rest is not; without,
// the kernel tracks the connection and has no further rules.
func BenchmarkEstablished(b *testing.B) {
	b.Run("conntrack", func(b *testing.B) { established(b, conntrackOnly) })
	b.Run("postern", func(b *testing.B) { established(b, withPostern) })
}

func established(b *testing.B, prepare func(*testing.B, *lab.Lab)) {
	l, err := lab.New()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	pods, err := l.AddPods(manifests)
	if err != nil {
		b.Fatal(err)
	}
	prepare(b, l)

	db := netip.AddrPortFrom(pods["prod-engineering/db"].Addr4(), 5432)
	var listener *net.TCPListener
	if err := pods["prod-engineering/db"].Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(db))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	received := make(chan int64)
	go func() {
		c, err := listener.AcceptTCP()
		if err != nil {
			received <- 0
			return
		}
		n, _ := io.Copy(io.Discard, c)
		received <- n
	}()
	c, err := pods["prod-engineering/api"].DialTCP(db, 5*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk)))
	n := int64(0)
	for b.Loop() {
		if _, err := c.Write(chunk); err != nil {
			b.Fatal(err)
		}
		n++
	}
	c.Close()
	if got := <-received; got != n*int64(len(chunk)) {
		b.Fatalf("%d bytes arrived of %d", got, n*int64(len(chunk)))
	}
}

func conntrackOnly(b *testing.B, l *lab.Lab) {
	if err := l.Node.Do(func() error {
		return exec.Command("nft", "add table inet t; add chain inet t c { type filter hook postrouting priority 95; }; add rule inet t c ct state established accept").Run()
	}); err != nil {
		b.Fatal(err)
	}
}

func withPostern(b *testing.B, l *lab.Lab) {
	dir, err := os.MkdirTemp("", "postern-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "postern")
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", program, "./cmd/postern").CombinedOutput(); err != nil {
		b.Fatalf("build: %v: %s", err, out)
	}
	d, err := l.Node.StartDaemon(program, "run", "--source", manifests, "--socket", "", "--log-format", "json")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Stop(syscall.SIGTERM); err != nil {
			b.Error(err)
		}
	})
	if _, err := d.WaitEnforcing(0); err != nil {
		b.Fatal(err)
	}
}
