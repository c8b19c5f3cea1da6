package speed

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what the machine and this process had used of its processors at a moment.
type usage struct {
	at time.Time
	// user is time that any process spent outside the kernel, stolen what the host of
	// a virtual machine took; own is our part of user, with that of children that
	// have ended. What the kernel does for packets cannot be told apart by process, so
	// it is left out.
	user, stolen, own time.Duration
	known             bool
}

// Fields of the first line of /proc/stat (proc(5)), in clock ticks, which user space
// sees as hundredths of a second on all architectures that Go runs on.
const (
	statUser, statNice, statSteal = 0, 1, 7
	tick100                       = 10 * time.Millisecond
)

func usageNow() (u usage) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u
	}
	var field [8]int64
	line, _, _ := bytes.Cut(text, []byte("\n"))
	args := make([]any, len(field))
	for i := range field {
		args[i] = &field[i]
	}
	if _, err := fmt.Sscan(string(bytes.TrimPrefix(line, []byte("cpu"))), args...); err != nil {
		return u
	}
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) != nil {
			return u
		}
		u.own += time.Duration(r.Utime.Nano())
	}
	u.at, u.known = time.Now(), true
	u.user, u.stolen = time.Duration(field[statUser]+field[statNice])*tick100, time.Duration(field[statSteal])*tick100
	return u
}

// others is the part of so many processors that others used since an earlier moment,
// from 0 to 1; ok is false where it cannot be told.
func (u usage) others(since usage, cores int) (part float64, ok bool) {
	took := u.at.Sub(since.at) * time.Duration(cores)
	if !u.known || !since.known || took < 10*tick100 { // too short for the ticks
		return 0, false
	}
	taken := (u.user - since.user) - (u.own - since.own) + (u.stolen - since.stolen)
	return min(max(float64(taken)/float64(took), 0), 1), true
}
