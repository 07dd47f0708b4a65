// SPDX-License-Identifier: Apache-2.0

package testvol

import (
	"encoding/binary"
	"os"
	"testing"
)

const sector = 512

// MBR writes a partition table with Linux partitions of equal size, so that tests need no sfdisk.
func MBR(t testing.TB, path string, count int, sectors uint32) {
	t.Helper()
	var b [sector]byte
	for i := range count {
		e := b[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], 2048+uint32(i)*sectors)
		binary.LittleEndian.PutUint32(e[12:], sectors)
	}
	b[510], b[511] = 0x55, 0xaa
	write(t, path, b[:], 0)
}

// GPT writes the first header of a partition table whose second one is in the last sector, and the protective MBR.
func GPT(t testing.TB, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(st.Size()/sector - 1)
	var mbr, h [sector]byte
	mbr[446+4] = 0xee
	binary.LittleEndian.PutUint32(mbr[446+8:], 1)
	binary.LittleEndian.PutUint32(mbr[446+12:], uint32(last))
	mbr[510], mbr[511] = 0x55, 0xaa
	copy(h[:], "EFI PART")
	binary.LittleEndian.PutUint32(h[8:], 0x10000) // revision 1.0
	binary.LittleEndian.PutUint32(h[12:], 92)
	binary.LittleEndian.PutUint64(h[24:], 1)
	binary.LittleEndian.PutUint64(h[32:], last)
	write(t, path, mbr[:], 0)
	write(t, path, h[:], sector)
}

func write(t testing.TB, path string, b []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}
