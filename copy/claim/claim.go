// SPDX-License-Identifier: Apache-2.0

// Package claim reads from an image's own first sectors how large it says it is, so that a copy of half an image is
// noticed while there is still a whole one.
package claim

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Claim is what a header says.
type Claim struct {
	Bytes int64  // the least size of a whole image
	What  string // the header: "GPT partition table"
}

// headSize covers the headers of all probes but for those at fixed larger offsets (btrfs, ISO 9660).
const headSize = 0x10000 + 4096

// Of returns the largest claim found in the first sectors of r; ok is false if there is none. Headers are input from
// strangers: a claim is a number to be shown, and nothing is allocated for it.
func Of(r io.ReaderAt) (c Claim, ok bool) {
	head := make([]byte, headSize)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Claim{}, false
	}
	head = head[:n]
	for _, probe := range []func([]byte) (uint64, string){gpt, mbr, ext, xfs, btrfs, iso, squashfs, qcow2} {
		bytes, what := probe(head)
		if bytes > uint64(c.Bytes) && bytes < 1<<62 {
			c, ok = Claim{int64(bytes), what}, true
		}
	}
	return c, ok
}

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

// at is n bytes of head from off; nil if it is shorter.
func at(head []byte, off, n int) []byte {
	if off+n > len(head) {
		return nil
	}
	return head[off : off+n]
}

// times multiplies, and gives up on overflow.
func times(a, b uint64) uint64 {
	if b != 0 && a > (1<<62)/b {
		return 0
	}
	return a * b
}

// gpt has the other copy of its header in the last sector (UEFI 2.10, 5.3.2).
func gpt(head []byte) (uint64, string) {
	for _, sector := range []int{512, 4096} {
		h := at(head, sector, 92)
		if h != nil && bytes.HasPrefix(h, []byte("EFI PART")) {
			return times(le.Uint64(h[32:])+1, uint64(sector)), "GPT partition table"
		}
	}
	return 0, ""
}

// mbr ends where its last partition does. A protective one (type 0xee) is GPT's to answer for.
func mbr(head []byte) (uint64, string) {
	h := at(head, 0, 512)
	if h == nil || h[510] != 0x55 || h[511] != 0xaa {
		return 0, ""
	}
	var end uint64
	for e := h[446:510]; len(e) > 0; e = e[16:] {
		if e[0] != 0 && e[0] != 0x80 {
			return 0, "" // a boot sector of something else
		}
		if e[4] != 0 && e[4] != 0xee {
			end = max(end, uint64(le.Uint32(e[8:]))+uint64(le.Uint32(e[12:])))
		}
	}
	return end * 512, "MBR partition table"
}

// ext is ext2, 3 and 4 (fs/ext4/ext4.h, struct ext4_super_block).
func ext(head []byte) (uint64, string) {
	h := at(head, 1024, 1024)
	if h == nil || h[56] != 0x53 || h[57] != 0xef {
		return 0, ""
	}
	blocks, shift := uint64(le.Uint32(h[4:])), le.Uint32(h[24:])
	const incompat64bit = 0x80
	if le.Uint32(h[96:])&incompat64bit != 0 {
		blocks |= uint64(le.Uint32(h[336:])) << 32
	}
	if shift > 6 {
		return 0, ""
	}
	return times(blocks, 1024<<shift), "ext file system"
}

// xfs (fs/xfs/libxfs/xfs_format.h, struct xfs_dsb).
func xfs(head []byte) (uint64, string) {
	h := at(head, 0, 16)
	if h == nil || !bytes.HasPrefix(h, []byte("XFSB")) {
		return 0, ""
	}
	return times(be.Uint64(h[8:]), uint64(be.Uint32(h[4:]))), "XFS file system"
}

// btrfs says how large the device with this superblock is (struct btrfs_super_block, dev_item.total_bytes).
func btrfs(head []byte) (uint64, string) {
	h := at(head, 0x10000, 512)
	if h == nil || !bytes.HasPrefix(h[64:], []byte("_BHRfS_M")) {
		return 0, ""
	}
	const devItem = 201
	return le.Uint64(h[devItem+8:]), "btrfs file system"
}

// iso is ISO 9660's primary volume descriptor: blocks and block size, each in both byte orders.
func iso(head []byte) (uint64, string) {
	h := at(head, 32768, 2048)
	if h == nil || !bytes.HasPrefix(h[1:], []byte("CD001")) {
		return 0, ""
	}
	return uint64(le.Uint32(h[80:])) * uint64(le.Uint16(h[128:])), "ISO 9660 file system"
}

// squashfs (struct squashfs_super_block, bytes_used).
func squashfs(head []byte) (uint64, string) {
	h := at(head, 0, 48)
	if h == nil || !bytes.HasPrefix(h, []byte("hsqs")) {
		return 0, ""
	}
	return le.Uint64(h[40:]), "squashfs file system"
}

// qcow2 is not as large as the disk in it, but it has at least its tables (docs/interop/qcow2.txt).
func qcow2(head []byte) (uint64, string) {
	h := at(head, 0, 72)
	if h == nil || !bytes.HasPrefix(h, []byte("QFI\xfb")) {
		return 0, ""
	}
	cluster := uint64(1) << (be.Uint32(h[20:]) & 31)
	l1 := be.Uint64(h[40:]) + uint64(be.Uint32(h[36:]))*8
	refcounts := be.Uint64(h[48:]) + times(uint64(be.Uint32(h[56:])), cluster)
	return max(l1, refcounts), "qcow2 header"
}
