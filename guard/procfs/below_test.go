// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestProcessesBelow(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	there := start(t, "sh", "-c", "cd "+sub+" && echo ready && read x")
	open := start(t, "bash", "-c", "cd "+elsewhere+" && exec 9<"+dir+" && echo ready && read x")
	other := start(t, "sh", "-c", "cd "+elsewhere+" && echo ready && read x")
	for _, p := range []*process{there, open, other} {
		p.hear(t)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	found := map[int]Below{}
	nobody := func(string) bool { return false }
	if err := (FS{Root: "/proc"}).ProcessesBelow(t.Context(), st.Dev, st.Ino, nobody, func(b Below) { found[b.PID] = b }); err != nil {
		t.Fatal(err)
	}
	if b := found[there.Process.Pid]; b.How != "cwd" || b.Path != sub || b.Comm != "sh" {
		t.Errorf("the shell that works there: %+v", b)
	}
	if b := found[open.Process.Pid]; b.How != "fd" || b.Path != dir {
		t.Errorf("the shell that has it open: %+v", b)
	}
	if b, ok := found[other.Process.Pid]; ok {
		t.Errorf("a shell elsewhere: %+v", b)
	}
}
