// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"path"
	"syscall"
)

// errnoFor is what the caller of a refused operation gets: the policy's errno, EBUSY by default.
//
// util-linux's mount and losetup take EBUSY for "somebody else has just taken that loop device" and try the next one:
// `mount -o loop` for ever, at thousands of refusals a second, `losetup -f` 64 times (mnt_context_setup_loopdev,
// create_loop; seen with 2.38). ETXTBSY, open(2)'s own word for a file that may not be written while it is in use, ends
// that. Their name is no proof of anything, and need not be: whoever bears it is refused all the same.
func (q *question) errnoFor(e syscall.Errno) syscall.Errno {
	if e != syscall.EBUSY || q.Op != OpOpenWrite {
		return e
	}
	switch path.Base(q.caller.Exe) {
	case "mount", "losetup":
		return syscall.ETXTBSY
	}
	return e
}
