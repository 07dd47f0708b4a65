// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"log/slog"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"imgward/fs/state"
)

func TestSplice(t *testing.T) {
	slots, err := state.CreateRequests()
	if err != nil {
		t.Fatal(err)
	}
	defer slots.File().Close()
	dir := t.TempDir()
	data := make([]byte, 600<<10)
	rand.New(rand.NewSource(1)).Read(data)
	if err := os.WriteFile(filepath.Join(dir, "file"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	folder, err := os.Open(dir) // not to be spliced from
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	m := &store{}
	l := &loop{log: slog.New(slog.DiscardHandler), slots: slots, mover: m, splicer: splicer{idle: make(chan pipe, 1)}}
	defer l.splicer.close()

	for _, c := range []struct {
		name   string
		file   *os.File
		offset int
		size   int
		left   bool
	}{
		{name: "a page and more", file: file, size: spliceFrom},
		{name: "most, unaligned", file: file, offset: 4095, size: state.MaxPayload},
		{name: "up to the end", file: file, offset: len(data) - spliceFrom, size: spliceFrom},
		{name: "past the end", file: file, offset: len(data) - spliceFrom + 1, size: spliceFrom, left: true},
		{name: "after a short one", file: file, offset: 1, size: spliceFrom},
		{name: "small", file: file, size: spliceFrom - 1, left: true},
		{name: "too much", file: file, size: state.MaxPayload + 1, left: true},
		{name: "not by the page cache", size: spliceFrom, left: true},
		{name: "not spliced from", file: folder, size: spliceFrom, left: true},
		{name: "after that", file: file, size: spliceFrom, left: true},
	} {
		path := filepath.Join(dir, "device") // a socket would get several packets
		device, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		m.file, l.device = c.file, int(device.Fd())
		in := &fuse.ReadIn{InHeader: fuse.InHeader{Opcode: opRead, Unique: 8}, Offset: uint64(c.offset), Size: uint32(c.size)}
		s := put(slots.Take(), unsafe.Pointer(in), readInSize, "")
		if done := l.splice(s, in); done == c.left {
			t.Errorf("%s: answered %v", c.name, done)
		}
		s.Free()
		device.Close()
		answer, err := os.ReadFile(path)
		switch {
		case err != nil:
			t.Fatal(err)
		case c.left && len(answer) > 0:
			t.Errorf("%s: %d bytes were written", c.name, len(answer))
		case !c.left:
			want := make([]byte, outHeaderSize)
			binary.NativeEndian.PutUint32(want, uint32(outHeaderSize+c.size))
			binary.NativeEndian.PutUint64(want[8:], 8)
			want = append(want, data[c.offset:c.offset+c.size]...)
			if string(answer) != string(want) {
				t.Errorf("%s: another answer, of %d bytes", c.name, len(answer))
			}
		}
	}
}
