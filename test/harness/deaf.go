// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// deafEnv has this program serve a file system instead of running tests: "DIR:POINT".
const deafEnv = "IMGWARD_TEST_DEAF"

// Deaf is a file system that can be made to answer nothing, as one of a dead NFS server.
type Deaf struct {
	Dir    string // where it is mounted
	server *Daemon
	minor  uint32 // the name of its connection below fusectl
}

// NewDeaf mounts a file system that shows an empty directory of the host. It answers until Stop.
func (h *Host) NewDeaf(t testing.TB, name string) *Deaf {
	t.Helper()
	return h.MountDeaf(t, filepath.Join(h.Dir, name))
}

// MountDeaf is NewDeaf over a directory that is there, or not.
func (h *Host) MountDeaf(t testing.TB, dir string) *Deaf {
	t.Helper()
	files := filepath.Join(h.Dir, "files-of-"+filepath.Base(dir))
	for _, d := range []string{files, dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Setenv(deafEnv, files+":"+dir); err != nil {
		t.Fatal(err)
	}
	defer os.Unsetenv(deafEnv)
	d := &Deaf{Dir: dir, server: start(t, filepath.Join(h.Dir, "deaf.log"), "/proc/self/exe")}
	t.Cleanup(func() { d.end(t) })
	Until(t, dir+" is mounted", func() bool {
		var here, above unix.Stat_t
		if err := errors.Join(unix.Stat(dir, &here), unix.Stat(filepath.Dir(dir), &above)); err != nil {
			t.Fatal(err)
		}
		d.minor = unix.Minor(here.Dev)
		return here.Dev != above.Dev
	})
	return d
}

// Stop makes it answer no more.
func (d *Deaf) Stop(t testing.TB) { d.signal(t, syscall.SIGSTOP) }

// Continue makes it answer again, also what was asked meanwhile.
func (d *Deaf) Continue(t testing.TB) { d.signal(t, syscall.SIGCONT) }

func (d *Deaf) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(d.server.PID(), s); err != nil {
		t.Fatal(err)
	}
}

// end lets go of whoever waits still, and unmounts.
func (d *Deaf) end(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("%s/%d/abort", fusectl, d.minor), []byte("1"), 0); err != nil {
		t.Error(err)
	}
	d.server.Kill(t)
	if err := unix.Unmount(d.Dir, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", d.Dir, err)
	}
}

// serveDeaf is the file system's server.
func serveDeaf(dirs string) int {
	from, to, _ := strings.Cut(dirs, ":")
	root, err := fs.NewLoopbackRoot(from)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Without timeouts, so that the kernel asks each time.
	server, err := fs.Mount(to, root, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, Name: "deaf", FsName: "deaf", Options: []string{"default_permissions"},
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server.Wait()
	return 0
}
