// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
	"imgward/fs/mounttable"
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
	list := bystanders(mounttable.Device(m))
	if len(list) == 0 {
		list = append(list, "something is mounted on it, or exported from it (see findmnt, exportfs)")
	}
	return list
}

// bystanders are the processes whose working directory or root is on a file system.
func bystanders(dev uint64) []string {
	var list []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		if filepath.Base(proc) == strconv.Itoa(os.Getpid()) {
			continue
		}
		list = append(list, inTime(func() []string { return standing(proc, dev) })...)
	}
	return list
}

// inTime is what a look at a process finds, nothing if it takes too long: one that is about to execute a program cannot be
// looked at before its files of a dead view are closed, which may be never.
func inTime(look func() []string) []string {
	found := make(chan []string, 1)
	go func() { found <- look() }()
	select {
	case names := <-found:
		return names
	case <-time.After(lookWait):
		return nil
	}
}

// lookWait is how long a look at a process may take.
const lookWait = 200 * time.Millisecond

// standing says in which way a process is on a file system.
func standing(proc string, dev uint64) (list []string) {
	for _, way := range [...]struct{ link, is string }{{"cwd", "working directory"}, {"root", "root directory"}} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(proc, way.link), &st) == nil && st.Dev == dev {
			list = append(list, fmt.Sprintf("%s (pid %s) has its %s there", command(proc), filepath.Base(proc), way.is))
		}
	}
	return list
}

// elsewhere lists processes whose mount namespace shows a file system, one of each namespace.
func elsewhere(dev uint64) []string {
	var list []string
	seen := map[string]bool{}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		ns := strings.Join(inTime(func() []string {
			ns, _ := os.Readlink(filepath.Join(proc, "ns/mnt"))
			return []string{ns}
		}), "")
		if ns == "" || seen[ns] {
			continue
		}
		seen[ns] = true
		list = append(list, inTime(func() []string { return showing(proc, dev) })...)
	}
	return list
}

// showing names a process if its mount namespace shows a file system.
func showing(proc string, dev uint64) []string {
	f, err := os.Open(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return nil
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(f, mountinfo.FSTypeFilter(viewfs.FSType))
	if err != nil || !slices.ContainsFunc(mounts, func(m *mountinfo.Info) bool { return mounttable.Device(m) == dev }) {
		return nil
	}
	return []string{fmt.Sprintf("%s (pid %s) and its like", command(proc), filepath.Base(proc))}
}

func command(proc string) string {
	comm, _ := os.ReadFile(filepath.Join(proc, "comm"))
	return strings.TrimSpace(string(comm))
}
