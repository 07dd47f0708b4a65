// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/target"
)

// limited is the view where the limit of open files is low and cannot be raised, as in a container.
func limited(files int) target.Peer {
	p := target.View
	command := p.Command
	p.Command = func(tools, backing, mountpoint string) []string {
		prefix := []string{
			"prlimit", fmt.Sprintf("--nofile=%d:%d", files, files), "setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource",
		}
		return append(prefix, command(tools, backing, mountpoint)...)
	}
	return p
}

// TestDescriptorsRunShort: descriptors that the daemon can have again are never in the way of those that a client needs,
// and when clients have taken all there are, the daemon can still be asked, and a view be ended.
func TestDescriptorsRunShort(t *testing.T) {
	const limit, names, opened, locked = 600, 2000, 400, 80
	work := workDir(t)
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	mount := startPeer(t, limited(limit), work, tree)
	name := func(i int) string { return filepath.Join(mount.Dir, fmt.Sprint("file", i)) }
	for i := range names {
		if err := os.WriteFile(name(i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	var err error
	open := func(i int) bool {
		var f *os.File
		if f, err = os.OpenFile(name(i), os.O_RDWR, 0); err == nil {
			files = append(files, f)
		}
		return err == nil
	}
	for i := range opened {
		for j := range 5 { // what others look at meanwhile
			if _, err := os.Stat(name((i*5 + j) % names)); err != nil {
				t.Fatal(err)
			}
		}
		if !open(i) {
			t.Fatalf("file %d of %d: %v", i, opened, err)
		}
		if i < locked {
			if err := unix.FcntlFlock(files[i].Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
				t.Fatalf("lock %d: %v", i, err)
			}
		}
	}
	for i := opened; i < names && open(i); i++ {
	}
	if err == nil || len(files) > limit {
		t.Fatalf("%d files are open (%v)", len(files), err)
	}
	if _, err := os.Stat(name(names - 1)); err != nil {
		t.Errorf("stat: %v", err)
	}
	status := exec.Command(mount.Peer.Command(os.Getenv(toolsEnv), "", "")[5], "status", mount.Dir)
	if out, err := status.CombinedOutput(); err != nil {
		t.Errorf("status: %v\n%s", err, out)
	}
}
