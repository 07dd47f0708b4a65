// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"strconv"
	"testing"
	"time"

	"imgward/test/harness"
)

// TestLocks: what QEMU has locked stays locked across take-overs.
func TestLocks(t *testing.T) {
	h := harness.New(t)
	v := h.Mount(t)
	disks := []harness.Disk{{Target: "vda", File: h.Qcow2(t, "vm.qcow2", 64*harness.MiB), Format: "qcow2"}}
	g := h.Boot(t, "one", disks...)
	two := h.Define(t, harness.Spec{Name: "two", Disks: disks})
	whileKilling(t, v, func() {
		for end := time.Now().Add(*torture); time.Now().Before(end); {
			harness.Run(t, "qemu-img", "info", disks[0].File).Fails(t, `Failed to get shared "write" lock`)
			two.Virsh(t, "start").Fails(t, `Failed to get "write" lock`)
		}
	})
	g.Agent.Healthy(t, "vda")
}

// closers opens a file twice, locks a byte through both descriptors, closes one and looks for the lock through the other,
// as QEMU does when it changes its permissions on an image.
const closers = `
import fcntl, os, struct, sys, time
F_OFD_GETLK, F_OFD_SETLK = 36, 37

def lock(fd, cmd, kind):
    r = fcntl.fcntl(fd, cmd, struct.pack("hhqqi4x", kind, 0, 101, 1, 0))
    return struct.unpack("hhqqi4x", r)[0]

end, rounds = time.time() + float(sys.argv[2]), 0
while time.time() < end:
    for name in "abc":
        path = os.path.join(sys.argv[1], name)
        one, two = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in "12")
        lock(one, F_OFD_SETLK, fcntl.F_RDLCK)
        lock(two, F_OFD_SETLK, fcntl.F_RDLCK)
        if lock(two, F_OFD_GETLK, fcntl.F_WRLCK) == fcntl.F_UNLCK:
            sys.exit("round %d: a lock that is held is not seen" % rounds)
        os.close(one)
        if lock(two, F_OFD_GETLK, fcntl.F_WRLCK) != fcntl.F_UNLCK:
            sys.exit("round %d: the lock of a closed file is still there" % rounds)
        os.close(two)
        os.unlink(path) # the next file may get its inode number
        rounds += 1
print("rounds", rounds)
`

// TestClosedLocks: a lock goes with the file it was taken through, also if the worker dies just then.
func TestClosedLocks(t *testing.T) {
	both(t, func(t *testing.T, opts ...string) {
		h := harness.NewFiles(t)
		v := h.Mount(t, opts...)
		whileKilling(t, v, func() {
			for end := time.Now().Add(*torture); time.Now().Before(end); {
				r := harness.Run(t, "python3", "-c", closers, h.Images, strconv.Itoa(min(5, max(1, int(time.Until(end).Seconds())))))
				t.Logf("closers: %s", r.OK(t))
			}
		})
	})
}
