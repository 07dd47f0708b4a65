// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"bytes"
	"fmt"
	"strconv"
)

// Status is what /proc/ID/status says of a thread and its process; see proc_pid_status(5).
type Status struct {
	TGID int    // the process that the thread belongs to
	PPID int    // its parent
	UID  uint32 // file system uid: by this the kernel judges file access
}

// Status reads /proc/ID/status of a process or thread.
func (f FS) Status(id int) (Status, error) {
	// All that is wanted stands in the first lines; the whole file can be several KiB on large machines.
	var buf [1024]byte
	n, err := f.read(id, "status", buf[:])
	if err != nil {
		return Status{}, err
	}
	return parseStatus(buf[:n])
}

func parseStatus(text []byte) (Status, error) {
	s := Status{TGID: -1, PPID: -1}
	for line := range bytes.Lines(text) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		fields := bytes.Fields(value)
		switch {
		case string(key) == "Tgid" && len(fields) == 1:
			s.TGID = atoi(fields[0])
		case string(key) == "PPid" && len(fields) == 1:
			s.PPID = atoi(fields[0])
		case string(key) == "Uid" && len(fields) == 4:
			s.UID = uint32(atoi(fields[3])) // real, effective, saved, file system
			if s.TGID > 0 && s.PPID >= 0 {
				return s, nil
			}
		}
	}
	return s, fmt.Errorf("procfs: status without Tgid, PPid and Uid")
}

func atoi(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return -1
	}
	return n
}
