// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
	"imgward/test/need"
)

// TestFullTables: when nodes or handles have run out, nothing is made that cannot be named or opened then.
func TestFullTables(t *testing.T) {
	const nodesHigh, handlesHigh = 5 * 8, 7 * 8 // words of the state's header
	for name, at := range map[string]int64{"nodes": nodesHigh, "handles": handlesHigh} {
		t.Run(name, func(t *testing.T) {
			// The kernel is not asked to forget, for that would make room some time.
			l := newLive(t, func(l *live) { l.FS.nodes.pruneAt = state.MaxNodes + 1 })
			l.write(t, "image")
			// Held, for whoever drops the host's caches would make room as well.
			held, err := os.Open(l.path("image"))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			var high [8]byte
			if _, err := l.FS.region.File().ReadAt(high[:], at); err != nil {
				t.Fatal(err)
			}
			full := binary.NativeEndian.AppendUint64(nil, state.MaxNodes)
			if _, err := l.FS.region.File().WriteAt(full, at); err != nil {
				t.Fatal(err)
			}
			for l.takeFree(name) {
			}
			if f, err := os.OpenFile(l.path("new"), os.O_CREATE|os.O_WRONLY, 0o600); errno(err) != syscall.ENFILE {
				f.Close()
				t.Errorf("create: %v, want ENFILE", err)
			}
			if _, err := os.Lstat(l.backing + "/new"); !os.IsNotExist(err) {
				t.Errorf("create failed and has made a file (%v)", err)
			}
			if name == "handles" {
				if err := os.Truncate(l.path("image"), 7); err != nil {
					t.Error(err)
				}
				if _, err := os.OpenFile(l.path("image"), os.O_TRUNC|os.O_WRONLY, 0); errno(err) != syscall.ENFILE {
					t.Errorf("open: %v, want ENFILE", err)
				}
				if st, err := os.Stat(l.backing + "/image"); err != nil || st.Size() != 7 {
					t.Errorf("open failed and has truncated the file (%v)", err)
				}
			} else if err := os.Mkdir(l.path("dir"), 0o755); errno(err) != syscall.ENFILE {
				t.Errorf("mkdir: %v, want ENFILE", err)
			}
			if _, err := l.FS.region.File().WriteAt(high[:], at); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// takeFree uses up a record that was given back.
func (l *live) takeFree(kind string) (ok bool) {
	if kind == "nodes" {
		_, ok = l.FS.nodes.records.Add(&state.Node{})
	} else {
		_, ok = l.FS.handles.records.Add(&state.Handle{})
	}
	return ok
}

// TestPrune: the kernel is asked to forget nodes before the table is full.
func TestPrune(t *testing.T) {
	const many = 200
	l := newLive(t, func(l *live) { l.FS.nodes.pruneAt = many })
	for i := range 5 * many {
		l.write(t, fmt.Sprint("file", i))
	}
	if !l.FS.srv.KernelSettings().SupportsNotify(fuse.NOTIFY_PRUNE) {
		need.Kernel(t, "FUSE_NOTIFY_PRUNE (Linux 6.18)")
	}
	for end := time.Now().Add(20 * time.Second); l.FS.nodes.records.Used() > 2*many; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the kernel knows %d nodes", l.FS.nodes.records.Used())
		}
		_ = unix.Access(l.path("file0"), 0)
	}
}
