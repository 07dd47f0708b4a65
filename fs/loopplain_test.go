// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"imgward/fs/state"
)

// answers answers plain questions, each in its own way. Node 9 is not there, and node 13 makes it panic.
type answers struct {
	*store
	forgotten []uint64
}

func (a *answers) of(node uint64) fuse.Status {
	switch node {
	case 9:
		return fuse.ENOENT
	case 13:
		panic("node 13")
	}
	return fuse.OK
}

func (a *answers) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	out.NodeId, out.Size = 7, uint64(len(name))
	return a.of(in.NodeId)
}

func (a *answers) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Size, out.AttrValid = in.Fh(), 1
	return a.of(in.NodeId)
}

func (a *answers) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if len(dest) < len(attr) && in.NodeId != 9 {
		return uint32(len(attr)), fuse.ERANGE
	}
	return uint32(copy(dest, attr)), a.of(in.NodeId)
}

func (a *answers) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.Fh, out.OpenFlags = 5, in.Flags
	return a.of(in.NodeId)
}

func (a *answers) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status { return a.of(in.NodeId) }

func (a *answers) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { _ = a.of(in.NodeId) }

func (a *answers) Forget(node, lookups uint64) {
	a.forgotten = append(a.forgotten, node, lookups)
	_ = a.of(node)
}

// What the loop answers itself is, byte for byte, what go-fuse answers.
func TestAnswerPlain(t *testing.T) {
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
	fs := &answers{store: &store{RawFileSystem: fuse.NewDefaultRawFileSystem()}}
	opts := fuseOptions(slog.New(slog.DiscardHandler), false)
	opts.PanicHandler = func(any) fuse.Status { return fuse.EIO }
	l := &loop{
		log: slog.New(slog.DiscardHandler), device: pair[0], slots: slots, mover: fs, panicked: opts.PanicHandler,
		proto: fuse.NewProtocolServer(fs, opts),
	}
	l.small.New = func() any {
		b := alignedReply(smallReply)
		for i := range *b {
			(*b)[i] = 0xa5 // what an earlier answer has left
		}
		return b
	}

	for _, node := range []uint64{2, 9, 13} {
		h := fuse.InHeader{NodeId: node, Unique: 8}
		put := func(opcode uint32, in unsafe.Pointer, size int, names string) state.Slot {
			(*fuse.InHeader)(in).Opcode = opcode
			return put(slots.Take(), in, size, names)
		}
		getattr := fuse.GetAttrIn{InHeader: h, Fh_: 21}
		open := func(flags uint32) *fuse.OpenIn { return &fuse.OpenIn{InHeader: h, Flags: flags} }
		xattr := func(size uint32) *fuse.GetXAttrIn { return &fuse.GetXAttrIn{InHeader: h, Size: size} }
		for _, c := range []struct {
			name string
			s    state.Slot
			left bool // to go-fuse
		}{
			{name: "lookup", s: put(opLookup, unsafe.Pointer(&h), state.HeaderSize, "image\x00")},
			{name: "lookup of nothing", s: put(opLookup, unsafe.Pointer(&h), state.HeaderSize, ""), left: true},
			{name: "getattr", s: put(opGetattr, unsafe.Pointer(&getattr), int(unsafe.Sizeof(getattr)), "")},
			{name: "getattr, cut off", s: put(opGetattr, unsafe.Pointer(&getattr), int(unsafe.Sizeof(getattr))-8, ""), left: true},
			{name: "getxattr", s: put(opGetxattr, unsafe.Pointer(xattr(100)), getXAttrInSize, "user.a\x00")},
			{name: "getxattr, too small", s: put(opGetxattr, unsafe.Pointer(xattr(3)), getXAttrInSize, "user.a\x00")},
			{name: "getxattr's size", s: put(opGetxattr, unsafe.Pointer(xattr(0)), getXAttrInSize, "user.a\x00")},
			{name: "getxattr, large", s: put(opGetxattr, unsafe.Pointer(xattr(64<<10)), getXAttrInSize, "user.a\x00"), left: true},
			{name: "open for reading", s: put(opOpen, unsafe.Pointer(open(unix.O_RDONLY|unix.O_DIRECT)), openInSize, "")},
			{name: "open for writing", s: put(opOpen, unsafe.Pointer(open(unix.O_RDWR)), openInSize, ""), left: true},
			{name: "open that truncates", s: put(opOpen, unsafe.Pointer(open(unix.O_RDONLY|unix.O_TRUNC)), openInSize, ""), left: true},
			{name: "flush", s: put(opFlush, unsafe.Pointer(&fuse.FlushIn{InHeader: h}), int(unsafe.Sizeof(fuse.FlushIn{})), "")},
			{name: "release", s: put(opRelease, unsafe.Pointer(&fuse.ReleaseIn{InHeader: h}), int(unsafe.Sizeof(fuse.ReleaseIn{})), "")},
		} {
			want := make([]byte, largeReply)
			n := 0
			if !c.left {
				n, _ = l.proto.HandleRequest([][]byte{c.s.Request()}, [][]byte{want})
			}
			if done := l.answerPlain(c.s); done == c.left {
				t.Errorf("%s: answered %v", c.name, done)
			} else if done {
				got := make([]byte, largeReply)
				m, err := unix.Read(pair[1], got)
				if err != nil || !bytes.Equal(got[:m], want[:n]) {
					t.Errorf("%s of node %d: answered % x, and go-fuse % x (%v)", c.name, node, got[:m], want[:n], err)
				}
			} else if c.s.Marked(state.Moving) {
				t.Errorf("%s: it is marked, and go-fuse could not interrupt it", c.name)
			}
			c.s.Free()
		}
		l.handle(put(opForget, unsafe.Pointer(&fuse.ForgetIn{InHeader: h, Nlookup: 3}), int(unsafe.Sizeof(fuse.ForgetIn{})), ""))
	}
	if want := []uint64{2, 3, 9, 3, 13, 3}; !slices.Equal(fs.forgotten, want) {
		t.Errorf("forgotten %v, want %v", fs.forgotten, want)
	}
}
