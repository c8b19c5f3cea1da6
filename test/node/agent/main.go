// Command agent is what pods of the tests run. Without arguments it waits to be
// ended. With an address it opens connections to it from its first moment on, a
// hundred a second, and never ends.
package main

import (
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	if len(os.Args) > 1 {
		go func() {
			for {
				if c, err := net.DialTimeout("tcp", os.Args[1], time.Second); err == nil {
					c.Write([]byte("hello"))
					c.Close()
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	<-end
}
