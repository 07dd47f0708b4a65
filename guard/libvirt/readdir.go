// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// readdir gives each name in a directory, valid until each returns, and the inode that it means, which getdents64(2) tells
// and the os package throws away. Among ten thousand files, they save ten thousand calls of stat.
func readdir(fd int, each func(name []byte, ino uint64)) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("list the directory: %w", err)
		case n == 0:
			return nil
		}
		eachEntry(buf[:n], each)
	}
}

// eachEntry takes records of struct linux_dirent64 apart: inode (8 bytes), offset (8), length of the record (2), type
// (1), name, zero.
func eachEntry(records []byte, each func(name []byte, ino uint64)) {
	const header = 19
	for len(records) >= header {
		size := int(binary.NativeEndian.Uint16(records[16:]))
		if size < header || size > len(records) {
			return
		}
		name, _, _ := bytes.Cut(records[header:size], []byte{0})
		each(name, binary.NativeEndian.Uint64(records))
		records = records[size:]
	}
}

// neverReusesInodes says whether an inode number that is seen again under the same name is the same file: true of
// tmpfs, which counts them up, and where /run is. Elsewhere a freed number is the next file's.
func neverReusesInodes(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && uint32(fs.Type) == unix.TMPFS_MAGIC
}
