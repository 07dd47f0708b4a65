// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/need"
	"imgward/test/uring"
)

// TestIoUring: what io_uring opens, and writes through what it opened, is judged like any other open and write.
func TestIoUring(t *testing.T) {
	if r, err := uring.New(); err == unix.ENOSYS || err == unix.EPERM {
		need.Kernel(t, "io_uring with IORING_OP_OPENAT (from Linux 5.6 on, with CONFIG_IO_URING and kernel.io_uring_disabled=0)")
	} else if err != nil {
		t.Fatal(err)
	} else {
		r.Close()
	}
	bin := t.TempDir()
	agent, outsider := program(t, filepath.Join(bin, "agent")), program(t, filepath.Join(bin, "outsider"))
	v := mount(t, "trusted = [\""+agent+"\"]\n"+allAlways)
	for _, op := range []string{"uring-open", "uring-trunc", "uring-write"} {
		image := v.image(t, op+".img")
		if got := does(t, outsider, 0, op, image); got != "EBUSY" {
			t.Errorf("%s by an outsider: %s, want EBUSY", op, got)
		}
		if got := does(t, agent, 0, op, image); got != "ok" {
			t.Errorf("%s by a trusted program: %s, want ok", op, got)
		}
	}
	if events := v.run(t, "events", v.dir); strings.Count(events, "refused: ") != 3 {
		t.Errorf("want 3 refusals:\n%s", events)
	}
}

// uringOps are what a caller does by io_uring.
var uringOps = map[string]func(r *uring.Ring, path string) error{
	"uring-open": func(r *uring.Ring, path string) error {
		_, err := r.Open(path, unix.O_WRONLY)
		return err
	},
	"uring-trunc": func(r *uring.Ring, path string) error {
		_, err := r.Open(path, unix.O_WRONLY|unix.O_TRUNC)
		return err
	},
	// An open that does not block is let through (touch), and each write is refused.
	"uring-write": func(r *uring.Ring, path string) error {
		fd, err := r.Open(path, unix.O_WRONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		return r.Write(fd, []byte("x"))
	},
}
