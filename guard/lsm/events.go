// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"imgward/guard"
)

// Refusal is what the kernel has refused, or let through by an exception.
type Refusal struct {
	Op    guard.Op
	Image guard.ID // as it was declared; zero: it was not
	Name  string   // the last part of the path that was used; empty for a mount
	// Device is the number of a block device, or of the file system that the file is on, as stat(2) has it; Ino is the
	// file's, 0 for a block device.
	Device, Ino uint64
	PID         int
	Start       uint64 // as procfs.Stat has it
	UID         uint32
	Comm        string
	Class       Class
	TTY         uint64 // device number of the controlling terminal; 0: none, or not one of this mount namespace's
	Errno       syscall.Errno
	Audit       bool   // it went through, since the policy only watches
	Exception   uint64 // that let it through
}

var opNames = map[op]guard.Op{
	opWrite: guard.OpOpenWrite, opTruncate: guard.OpTruncate, opUnlink: guard.OpUnlink, opRename: guard.OpRename,
	opReplace: guard.OpReplace, opWriteData: guard.OpWrite, opSetFlags: guard.OpSetFlags, opUmount: guard.OpUmount,
	opMove: guard.OpMove, opCover: guard.OpCover,
}

// Observer is told what happens in the kernel, in order, by one goroutine.
type Observer interface {
	Refused(Refusal)
	Excepted(Refusal)
	// Changed: a VMM has opened an image that no VMM had open for writing, or was the last to close one.
	Changed(pid int)
}

// Follow tells the observer until stop is closed. Events before it are told as well, as many as the buffer takes.
func (l *Layer) Follow(stop <-chan struct{}, to Observer) error {
	r, err := ringbuf.NewReader(l.Events)
	if err != nil {
		return fmt.Errorf("second layer: events: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-stop:
		case <-done:
		}
		r.Close()
	}()
	for {
		record, err := r.Read()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("second layer: events: %w", err)
		}
		var e event
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e); err != nil {
			return fmt.Errorf("second layer: events: %w", err)
		}
		l.tell(&e, to)
	}
}

func (l *Layer) tell(e *event, to Observer) {
	switch e.Kind {
	case eventRefused:
		to.Refused(l.refusal(e))
	case eventAllowed:
		to.Excepted(l.refusal(e))
	case eventOpened, eventClosed:
		to.Changed(int(e.PID))
	}
}

func (l *Layer) refusal(e *event) Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Refusal{
		Op: opNames[e.Op], Image: l.byNumber[e.ID], Name: unix.ByteSliceToString(e.Name[:]), Device: userDev(e.Dev), Ino: e.Ino,
		PID: int(e.PID), Start: e.Start, UID: e.UID, Comm: unix.ByteSliceToString(e.Comm[:]), Class: Class(e.Class),
		Errno: syscall.Errno(e.Errno), Audit: e.Audit != 0, Exception: e.Exception,
	}
	if e.Rdev != 0 {
		r.Device, r.Ino = userDev(e.Rdev), 0
	}
	if e.TTY != 0 && e.Namespace == namespace() {
		r.TTY = userDev(e.TTY)
	}
	return r
}

// namespace is the number of the mount namespace of this process.
func namespace() uint32 {
	var st unix.Stat_t
	_ = unix.Stat("/proc/self/ns/mnt", &st)
	return uint32(st.Ino)
}

// Refusals is how often the layer has refused since it was loaded, and how many events were lost because nobody read them.
func (l *Layer) Refusals() (refused, lost uint64) {
	var c counters
	_ = l.Counters.Lookup(uint32(0), &c)
	return c.Refusals, c.Lost
}
