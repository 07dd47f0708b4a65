// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The daemon runs as root, its callers mostly do not. Permission to do a thing at all has been checked by the kernel
// (default_permissions); what remains is whose the result is: the owner and group of new files, and the set-id bits
// that a write, truncation or chmod by the unprivileged must clear. The backing file system works these out from the
// credentials of the thread that calls it, so that thread takes them on for the call.

// Capabilities that a caller other than root lacks and that change what an operation does (not whether it may).
const (
	capFsetid      = 1 << unix.CAP_FSETID       // keep set-id bits on write, chmod, ACL change
	capSysResource = 1 << unix.CAP_SYS_RESOURCE // use reserved blocks, exceed quotas
)

// caller is who a request comes from.
type caller struct {
	uid, gid uint32
	tid      uint32
}

func (c caller) root() bool { return c.uid == 0 && c.gid == 0 }

// identity is what a thread takes on for a call; the zero identity is the daemon's own.
type identity struct {
	uid, gid uint32   // of the file system
	groups   []uint32 // nil: the daemon's own
	dropped  uint64   // capabilities
}

// run runs f with the identity.
func (id *identity) run(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if id.groups != nil {
		setgroups(id.groups)
		defer setgroups(nil)
	}
	if id.gid != 0 {
		setfs(unix.SYS_SETFSGID, id.gid)
		defer setfs(unix.SYS_SETFSGID, 0)
	}
	// A change of fsuid from 0 drops every file system capability, and back to 0 raises them; the search of directories
	// that the caller may enter by a group or capability of its own still needs them. So the capabilities come after it.
	if id.uid != 0 || id.dropped != 0 {
		defer setEffective(0)
	}
	if id.uid != 0 {
		setfs(unix.SYS_SETFSUID, id.uid)
		defer setfs(unix.SYS_SETFSUID, 0)
	}
	if id.uid != 0 || id.dropped != 0 {
		setEffective(id.dropped)
	}
	return f()
}

// as runs f with the caller's file system uid and gid, and without the capabilities that would let the result differ
// from what the caller gets natively. groups adds the supplementary groups, which decide whether a new file in a
// set-gid directory, or a changed ACL, keeps its set-gid bit.
func (c caller) as(groups bool, f func() error) error {
	if c.root() && !groups {
		return f()
	}
	id := identity{uid: c.uid, gid: c.gid}
	if groups {
		id.groups = supplementary(c.tid)
	}
	if c.uid != 0 {
		id.dropped = capFsetid | capSysResource
	}
	return id.run(f)
}

// asGroups runs f as root, but with the caller's groups and without CAP_FSETID.
func (c caller) asGroups(f func() error) error {
	if c.uid == 0 {
		return f()
	}
	id := identity{gid: c.gid, groups: supplementary(c.tid), dropped: capFsetid}
	return id.run(f)
}

// killing runs f, which changes the contents of the file behind fd, so that it clears the set-id bits that a change by
// the caller clears; asked says that the kernel wants that even of root (one without CAP_FSETID). A set-gid bit without
// execute permission stays if the caller is in the file's group, so the groups matter.
func (c caller) killing(asked bool, fd int, f func() error) error {
	var st syscall.Stat_t
	if c.uid == 0 && !asked || fstat(fd, &st) == nil && st.Mode&(syscall.S_ISUID|syscall.S_ISGID) == 0 {
		return f()
	}
	if c.uid == 0 {
		return withoutFsetid(f)
	}
	return c.asGroups(f)
}

func withoutFsetid(f func() error) error {
	id := identity{dropped: capFsetid}
	return id.run(f)
}

// die ends the process at once, and a successor takes over: a thread that cannot be given the credentials of a caller, or
// brought back to its own, must not serve anyone.
func die() {
	for {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
	}
}

// setfs is setfsuid or setfsgid, for this thread only. They do not say whether they failed, but what was in force before:
// so they are asked again (-1 changes nothing).
func setfs(trap uintptr, id uint32) {
	_, _, _ = unix.RawSyscall(trap, uintptr(id), 0, 0)
	if now, _, _ := unix.RawSyscall(trap, ^uintptr(0), 0, 0); uint32(now) != id {
		die()
	}
}

// capabilitySets are those of every thread of this process, which nothing changes but the effective one.
var capabilitySets = sync.OnceValue(func() (data [2]unix.CapUserData) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		die()
	}
	return data
})

// setEffective gives this thread all permitted capabilities but the dropped ones.
func setEffective(dropped uint64) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := capabilitySets()
	data[0].Effective = data[0].Permitted &^ uint32(dropped)
	data[1].Effective = data[1].Permitted &^ uint32(dropped>>32)
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		die()
	}
}

// supplementary reads a thread's groups. A caller that is gone or not visible here has none.
func supplementary(tid uint32) []uint32 {
	list := []uint32{}
	f, err := os.Open("/proc/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return list
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), "Groups:")
		if !ok {
			continue
		}
		for _, word := range strings.Fields(rest) {
			if g, err := strconv.ParseUint(word, 10, 32); err == nil {
				list = append(list, uint32(g))
			}
		}
		break
	}
	return list
}

// setgroups sets this thread's supplementary groups. The raw call, not syscall.Setgroups, which would change every
// thread of the process.
func setgroups(list []uint32) {
	var p unsafe.Pointer
	if len(list) > 0 {
		p = unsafe.Pointer(&list[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(p), 0); errno != 0 {
		die()
	}
}
