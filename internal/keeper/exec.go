package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"
)

// ExecArgument as first argument makes a program that calls Exec become the command
// that follows.
const ExecArgument = "keeper-exec"

// Exec replaces the process, which the keeper has started with ExecArgument, by the
// command that follows it. It returns only if that fails.
func Exec(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	os.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, command, os.Environ()))
}

func uintptrOf(b *[2]byte) uintptr { return uintptr(unsafe.Pointer(b)) }
