// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// faultOps hand the kernel a pointer to nowhere.
var faultOps = map[string]operation{"efault": opFault}

// pathCalls are the system calls whose path argument is tested: where it stands in the argument list, and whether the
// other one is a pointer as well.
var pathCalls = map[string]struct {
	number  uintptr
	at      int
	pointer bool
}{
	"chmod": {unix.SYS_CHMOD, 0, false}, "chown": {unix.SYS_CHOWN, 0, false}, "lchown": {unix.SYS_LCHOWN, 0, false},
	"link": {unix.SYS_LINK, 0, true}, "link2": {unix.SYS_LINK, 1, true}, "mkdir": {unix.SYS_MKDIR, 0, false},
	"mknod": {unix.SYS_MKNOD, 0, false}, "open": {unix.SYS_OPEN, 0, false}, "rename": {unix.SYS_RENAME, 0, true},
	"rename2": {unix.SYS_RENAME, 1, true}, "rmdir": {unix.SYS_RMDIR, 0, false}, "symlink": {unix.SYS_SYMLINK, 0, true},
	"symlink2": {unix.SYS_SYMLINK, 1, true}, "truncate": {unix.SYS_TRUNCATE, 0, false},
	"unlink": {unix.SYS_UNLINK, 0, false}, "stat": {unix.SYS_STAT, 0, true}, "lstat": {unix.SYS_LSTAT, 0, true},
	"access": {unix.SYS_ACCESS, 0, false}, "readlink": {unix.SYS_READLINK, 0, true},
	"getxattr": {unix.SYS_GETXATTR, 0, true}, "setxattr": {unix.SYS_SETXATTR, 0, true},
}

// nowhere is the last page of user space, which is never mapped.
const nowhere = 0x7fffffffe001

// opFault takes a system call and the path that it gets in its other place.
func opFault(c *call) (string, error) {
	target, ok := pathCalls[c.str()]
	if !ok {
		panic(badCall("efault does not know that system call"))
	}
	other, err := unix.BytePtrFromString(c.str())
	if err != nil {
		return "", err
	}
	var args [2]uintptr
	if target.pointer {
		args[1-target.at] = uintptr(unsafe.Pointer(other))
	}
	args[target.at] = nowhere
	_, _, e := unix.Syscall(target.number, args[0], args[1], 1)
	runtime.KeepAlive(other)
	if e != 0 {
		return "", e
	}
	return "", nil
}
