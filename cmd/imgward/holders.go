package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
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
				list = append(list, fmt.Sprintf("%s (pid %s) has its %s there", command(proc), filepath.Base(proc), link))
			}
		}
	}
	if len(list) == 0 {
		list = append(list, "something is mounted on it, or exported from it (see findmnt, exportfs)")
	}
	return list
}

// elsewhere lists processes whose mount namespace shows a file system, one of each namespace.
func elsewhere(dev uint64) []string {
	var list []string
	seen := map[string]bool{}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		ns, err := os.Readlink(filepath.Join(proc, "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		f, err := os.Open(filepath.Join(proc, "mountinfo"))
		if err != nil {
			continue
		}
		mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.FSTypeFilter(viewfs.FSType))
		f.Close()
		for _, m := range mounts {
			if err == nil && viewfs.Device(m) == dev {
				list = append(list, fmt.Sprintf("%s (pid %s) and its like", command(proc), filepath.Base(proc)))
				break
			}
		}
	}
	return list
}

func command(proc string) string {
	comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
	return strings.TrimSpace(string(comm))
}
