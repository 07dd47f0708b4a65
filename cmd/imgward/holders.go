package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
)

// holders says who has files of a view open.
func holders(ctx context.Context, mountpoint string) ([]string, error) {
	var list []string
	err := control.Dial(mountpoint).Get(ctx, "holders", nil, func(line []byte) error {
		var h control.Holder
		if err := json.Unmarshal(line, &h); err != nil {
			return err
		}
		how := "reading"
		if h.Write {
			how = "writing"
		}
		list = append(list, fmt.Sprintf("%s (pid %d) has %s open for %s", h.Comm, h.PID, h.Path, how))
		return nil
	})
	return list, err
}

// busy looks for what keeps a mount busy besides open files: working directories and roots, and other mounts on it. It
// looks at device numbers only.
func busy(mountpoint string) []string {
	m, err := viewfs.MountAt(mountpoint)
	if err != nil || m == nil {
		return nil
	}
	var list []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		for _, link := range []string{"cwd", "root"} {
			var st unix.Stat_t
			if unix.Stat(filepath.Join(proc, link), &st) == nil && st.Dev == viewfs.Device(m) {
				comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
				pid, _ := strconv.Atoi(filepath.Base(proc))
				list = append(list, fmt.Sprintf("%s (pid %d) has its %s there", strings.TrimSpace(string(comm)), pid, link))
			}
		}
	}
	if len(list) == 0 {
		list = append(list, "something is mounted on it, or exported from it (see findmnt, exportfs)")
	}
	return list
}
