// SPDX-License-Identifier: Apache-2.0

package blockdev

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// signature is a magic number at a fixed place, as libblkid's probes have them.
type signature struct {
	off   int64
	magic string
	what  string
}

// signatures are what is found on disks of virtual machines and their hosts. ext2, 3 and 4 share theirs.
var signatures = []signature{
	{512, "EFI PART", "GPT partition table"},
	{4096, "EFI PART", "GPT partition table (4 KiB sectors)"},
	{512, "LABELONE", "LVM physical volume"},
	{1080, "\x53\xef", "ext file system"},
	{0, "XFSB", "XFS file system"},
	{0x10040, "_BHRfS_M", "btrfs file system"},
	{0, "LUKS\xba\xbe", "LUKS encrypted volume"},
	{4086, "SWAPSPACE2", "swap space"},
	{4096, "\xfc\x4e\x2b\xa9", "Linux RAID member"},
	{3, "NTFS    ", "NTFS file system"},
	{82, "FAT32   ", "FAT file system"},
	{54, "FAT16   ", "FAT file system"},
	{32769, "CD001", "ISO 9660 file system"},
	{0, "hsqs", "squashfs file system"},
	{1024, "\xf2\xf5\x20\x10", "F2FS file system"},
	{32, "NXSB", "APFS container"},
	{0, "QFI\xfb", "qcow2 image"},
	{0, "KDMV", "VMDK image"},
	{0x100000, "\x0d\xd0\x01\xc0", "VMFS volume"},
	{128<<10 + 0, "\x0c\xb1\xba\x00\x00\x00\x00\x00", "ZFS pool member"},
}

// Signatures names what the first bytes of r show; more than one may be true (an MBR and a file system).
func Signatures(r io.ReaderAt) ([]string, error) {
	head := make([]byte, 0x100000+512)
	n, err := r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("look at the contents: %w", err)
	}
	head = head[:n]
	var found []string
	for _, s := range signatures {
		if s.off < int64(len(head)) && bytes.HasPrefix(head[s.off:], []byte(s.magic)) {
			found = append(found, s.what)
		}
	}
	if len(found) == 0 && hasMBR(head) {
		found = append(found, "MBR partition table")
	}
	return found, nil
}

// hasMBR distinguishes a partition table from a boot sector: at least one entry, and every one either empty or with a status
// of 0x00 or 0x80.
func hasMBR(head []byte) bool {
	if len(head) < 512 || head[510] != 0x55 || head[511] != 0xaa {
		return false
	}
	used := 0
	for e := head[446:510]; len(e) > 0; e = e[16:] {
		if e[0] != 0 && e[0] != 0x80 {
			return false
		}
		if e[4] != 0 {
			used++
		}
	}
	return used > 0
}
