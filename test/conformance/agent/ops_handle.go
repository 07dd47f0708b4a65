// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"golang.org/x/sys/unix"
)

// handleOps go by file handles, as NFS servers and backup programs do.
var handleOps = map[string]operation{
	"handle": func(c *call) (string, error) {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, c.str(), 0)
		if err != nil {
			return "", err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.handles[c.bind] = h
		return "", nil
	},
	// openhandle takes a handle, a path on the same mount, and flags.
	"openhandle": func(c *call) (string, error) {
		name := c.str()
		c.mu.Lock()
		h, ok := c.handles[name]
		c.mu.Unlock()
		if !ok {
			panic(badCall("no handle is called " + name))
		}
		mount, err := unix.Open(c.str(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(mount)
		return c.keep(unix.OpenByHandleAt(mount, h, c.flags()|unix.O_CLOEXEC))
	},
}
