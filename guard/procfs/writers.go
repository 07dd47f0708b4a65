// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Writers calls yield for every process, VMMs and this one apart, that has a file that match takes open for writing or
// mapped for shared writing, until yield says false. Processes whose executable skip names are not looked into: a
// daemon that serves a view has a descriptor for each of a hundred thousand files.
//
// A process that ends meanwhile, or that cannot be looked at, is left out; the error is ctx's, or about /proc itself.
func (c *Classifier) Writers(ctx context.Context, match Match, skip func(exe string) bool, yield func(Process) bool) error {
	pids, err := c.FS.pids()
	if err != nil {
		return err
	}
	_, err = walk(ctx, &c.walker, pids, func(pid int, found func(Process) bool) {
		exe := c.FS.exePath(pid)
		if exe == "" || pid == os.Getpid() || skip(exe) || !c.FS.writes(pid, match) {
			return
		}
		if p, err := c.Classify(pid); err == nil && p.Kind != VMM {
			found(p)
		}
	}, yield)
	return err
}

// HasForWriting says whether a process has a file open for writing that match takes.
func (f FS) HasForWriting(pid int, match Match) (is bool) {
	f.files(Process{PID: pid}, match, func(o OpenFile) bool {
		is = o.Write
		return !is
	})
	return is
}

// writes says whether a process has a file open for writing that match takes, or mapped.
func (f FS) writes(pid int, match Match) bool {
	return f.HasForWriting(pid, match) || f.maps(pid, match)
}

// maps says whether a process has a file mapped for shared writing that match takes. The mapping may be all that is
// left: its descriptor closed, and with kernel passthrough the view's handle released.
func (f FS) maps(pid int, match Match) bool {
	file, err := os.Open(f.path(pid, "maps"))
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		area, ok := sharedWritable(lines.Bytes())
		if !ok {
			continue
		}
		var st unix.Statx_t
		// Through the link, for the device in the line is the superblock's, which is not stat's on btrfs.
		if unix.Statx(unix.AT_FDCWD, f.path(pid, "map_files/"+area), unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &st) != nil {
			continue
		}
		if o := fileOf(&st); match(&o) {
			return true
		}
	}
	return false
}

// sharedWritable takes a line of /proc/PID/maps, "55d0c0a00000-55d0c0a21000 rw-s 00000000 08:01 131 /path", and returns
// the area as map_files names it, if it is a shared mapping of a file that may be written.
func sharedWritable(line []byte) (area string, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) < 6 || len(fields[1]) < 4 || fields[1][1] != 'w' || fields[1][3] != 's' || string(fields[4]) == "0" {
		return "", false
	}
	// map_files prints the addresses without the zeros that fill them up in maps.
	from, to, ok := bytes.Cut(fields[0], []byte("-"))
	start, err1 := strconv.ParseUint(string(from), 16, 64)
	end, err2 := strconv.ParseUint(string(to), 16, 64)
	return strconv.FormatUint(start, 16) + "-" + strconv.FormatUint(end, 16), ok && err1 == nil && err2 == nil
}
