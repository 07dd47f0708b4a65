// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"encoding/binary"
	"log/slog"
	"os"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// store is a file in memory. Handle 1 is checked, and handle 2 makes it panic.
type store struct {
	fuse.RawFileSystem
	data   []byte
	during func()
	file   *os.File // what reads go by, if there is one
}

func (m *store) cached(*fuse.ReadIn) (int, bool) {
	if m.file == nil {
		return -1, false
	}
	return int(m.file.Fd()), true
}

func (m *store) read(in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	switch {
	case in.Fh == 2:
		panic("handle 2")
	case in.Offset > uint64(len(m.data)):
		return 0, fuse.EINVAL
	}
	if m.during != nil {
		m.during()
	}
	return copy(buf, m.data[in.Offset:]), fuse.OK
}

func (m *store) writeUnchecked(in *fuse.WriteIn, data []byte) (uint32, fuse.Status, bool) {
	if in.Fh == 1 {
		return 0, 0, false
	}
	return uint32(copy(m.data[in.Offset:], data)), fuse.OK, true
}

// put has a request in a slot.
func put(s state.Slot, request unsafe.Pointer, size int, data string) state.Slot {
	(*fuse.InHeader)(request).Length = uint32(size + len(data))
	copy(s.Buffer(), append(unsafe.Slice((*byte)(request), size), data...))
	return s
}

func TestMove(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	slots, err := state.CreateRequests()
	if err != nil {
		t.Fatal(err)
	}
	defer slots.File().Close()
	m := &store{data: []byte("0123456789")}
	l := &loop{log: slog.New(slog.DiscardHandler), device: pair[0], slots: slots, mover: m, panicked: func(any) fuse.Status { return 0 }}
	l.small.New = func() any { return alignedReply(smallReply) }
	l.large.New = func() any { return alignedReply(largeReply) }

	read := func(fh, offset uint64, size uint32) state.Slot {
		in := &fuse.ReadIn{InHeader: fuse.InHeader{Opcode: opRead, Unique: 8}, Fh: fh, Offset: offset, Size: size}
		return put(slots.Take(), unsafe.Pointer(in), readInSize, "")
	}
	write := func(fh, offset uint64, size int, data string) state.Slot {
		in := &fuse.WriteIn{InHeader: fuse.InHeader{Opcode: opWrite, Unique: 8}, Fh: fh, Offset: offset, Size: uint32(size)}
		return put(slots.Take(), unsafe.Pointer(in), writeInSize, data)
	}
	for _, c := range []struct {
		name    string
		s       state.Slot
		left    bool // to go-fuse
		code    fuse.Status
		payload string
	}{
		{name: "read", s: read(0, 2, 4), payload: "2345"},
		{name: "read at the end", s: read(0, 8, 100<<10), payload: "89"},
		{name: "read fails", s: read(0, 11, 4), code: fuse.EINVAL},
		{name: "read panics", s: read(2, 0, 4), code: fuse.EIO},
		{name: "read too much", s: read(0, 0, state.MaxPayload+1), left: true},
		{name: "write", s: write(0, 1, 2, "ab"), payload: "\x02\x00\x00\x00\x00\x00\x00\x00"},
		{name: "checked write", s: write(1, 1, 2, "cd"), left: true},
		{name: "write of another length than it says", s: write(0, 1, 3, "ef"), left: true},
	} {
		moved := l.move(c.s)
		if moved == c.left {
			t.Errorf("%s: moved %v", c.name, moved)
		}
		if !moved {
			if c.s.Marked(state.Moving) {
				t.Errorf("%s: it is marked, and go-fuse could not interrupt it", c.name)
			}
			c.s.Free()
			continue
		}
		answer := make([]byte, largeReply)
		n, err := unix.Read(pair[1], answer)
		if err != nil {
			t.Fatal(err)
		}
		code := fuse.Status(-int32(binary.NativeEndian.Uint32(answer[4:])))
		if int(binary.NativeEndian.Uint32(answer)) != n || code != c.code || binary.NativeEndian.Uint64(answer[8:]) != 8 || string(answer[outHeaderSize:n]) != c.payload {
			t.Errorf("%s: answered %q", c.name, answer[:n])
		}
		c.s.Free()
	}
	if string(m.data) != "0ab3456789" {
		t.Errorf("the file has %q", m.data)
	}

	// The kernel would ask for the end of a read again and again, were it told that there is no such request.
	s := read(0, 0, 1)
	m.during = func() {
		b := make([]byte, 8)
		binary.NativeEndian.PutUint64(b, s.Unique())
		in := &fuse.InHeader{Opcode: opInterrupt, Unique: s.Unique() | interruptBit}
		if _, moving := l.noteInterrupt(put(slots.Take(), unsafe.Pointer(in), state.HeaderSize, string(b))); !moving {
			t.Error("an interrupt does not find the read that is under way")
		}
	}
	if !l.move(s) {
		t.Error("not moved")
	}
}
