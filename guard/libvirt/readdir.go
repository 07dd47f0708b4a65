package libvirt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// entry is a name in a directory, with the inode that it means.
type entry struct {
	name string
	ino  uint64
}

// readdir lists a directory with the inode numbers that getdents64(2) gives, which the os package throws away. Among
// ten thousand files, they save ten thousand calls of stat.
func readdir(fd int) ([]entry, error) {
	var all []entry
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("list the directory: %w", err)
		case n == 0:
			return all, nil
		}
		all = appendEntries(all, buf[:n])
	}
}

// appendEntries takes records of struct linux_dirent64 apart: inode (8 bytes), offset (8), length of the record (2), type
// (1), name, zero.
func appendEntries(all []entry, records []byte) []entry {
	const header = 19
	for len(records) >= header {
		size := int(binary.NativeEndian.Uint16(records[16:]))
		if size < header || size > len(records) {
			return all
		}
		name, _, _ := bytes.Cut(records[header:size], []byte{0})
		all = append(all, entry{string(name), binary.NativeEndian.Uint64(records)})
		records = records[size:]
	}
	return all
}

// neverReusesInodes says whether an inode number that is seen again under the same name is the same file: true of
// tmpfs, which counts them up, and where /run is. Elsewhere a freed number is the next file's.
func neverReusesInodes(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && uint32(fs.Type) == unix.TMPFS_MAGIC
}
