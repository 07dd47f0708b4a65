// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// operations is every operation that a script can name. It is never changed.
var operations = merge(processOps, nameOps, makeOps, attrOps, statOps, fileOps, spaceOps, xattrOps, aclOps, lockOps,
	handleOps, ioctlOps, dirOps, faultOps)

func merge(families ...map[string]operation) map[string]operation {
	all := map[string]operation{}
	for _, family := range families {
		for name := range family {
			if _, taken := all[name]; taken {
				panic("two operations are called " + name)
			}
		}
		maps.Copy(all, family)
	}
	return all
}

// processOps act on the agent itself.
var processOps = map[string]operation{
	"reset": func(c *call) (string, error) { return "", c.reset() },
	"umask": func(c *call) (string, error) { syscall.Umask(int(c.mode())); return "", nil },
	"chdir": func(c *call) (string, error) { return "", unix.Chdir(c.str()) },
	"fchdir": func(c *call) (string, error) {
		return "", unix.Fchdir(c.fd())
	},
	"close": func(c *call) (string, error) {
		name := c.words[0]
		fd := c.fd()
		c.mu.Lock()
		delete(c.files, name)
		c.mu.Unlock()
		return "", unix.Close(fd)
	},
	"dup":  func(c *call) (string, error) { return c.keep(unix.FcntlInt(uintptr(c.fd()), unix.F_DUPFD_CLOEXEC, 3)) },
	"wait": opWait,
	"pending": func(c *call) (string, error) {
		// Long enough for an operation that does not block to have returned.
		select {
		case r := <-c.background().done:
			return "", fmt.Errorf("it has returned already: %s", r.Result())
		case <-time.After(50 * time.Millisecond):
			return "", nil
		}
	},
	"interrupt": opInterrupt,
	// effective changes the effective user only.
	"effective": func(c *call) (string, error) { return "", syscall.Setresuid(-1, c.int(), -1) },
}

func (c *call) background() *background {
	name := c.str()
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.pending[name]
	if !ok {
		panic(badCall("no background operation is called " + strconv.Quote(name)))
	}
	return b
}

func opWait(c *call) (string, error) {
	r := <-c.background().done
	if r.Errno != 0 {
		return "", r.Errno
	}
	if r.Fault != "" {
		return "", fmt.Errorf("%s", r.Fault)
	}
	return r.Value, nil
}

// opInterrupt sends the thread of a background operation a signal whose handler does not restart system calls, as
// timeouts of C programs do.
func opInterrupt(c *call) (string, error) {
	tid := c.background().tid
	if err := dontRestart(syscall.SIGUSR1); err != nil {
		return "", err
	}
	return "", unix.Tgkill(unix.Getpid(), tid, syscall.SIGUSR1)
}
