// SPDX-License-Identifier: Apache-2.0

package torture

import (
	"testing"
	"time"

	"imgward/test/harness"
)

// destroyers is a program that tries to destroy an image in all ways, as fast as it can, for some seconds. It prints what
// got through, and how often it was refused.
const destroyers = `
import ctypes, errno, os, sys, time
image, other, end = sys.argv[1], sys.argv[2], time.time() + float(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)

def exchange():
    if libc.renameat2(-100, image.encode(), -100, other.encode(), 2) < 0:
        raise OSError(ctypes.get_errno(), "exchange")

deeds = {
    "truncating open": lambda: os.open(image, os.O_WRONLY | os.O_TRUNC),
    "open for writing": lambda: os.open(image, os.O_RDWR),
    "truncate": lambda: os.truncate(image, 0),
    "unlink": lambda: os.unlink(image),
    "rename away": lambda: os.rename(image, image + ".gone"),
    "rename over": lambda: os.rename(other, image),
    "exchange": exchange,
    "rename directory": lambda: os.rename(os.path.dirname(image), os.path.dirname(image) + ".gone"),
}
refused = 0
while time.time() < end:
    for name, deed in deeds.items():
        try:
            deed()
        except OSError as e:
            if e.errno != errno.EBUSY:
                sys.exit("refused, but not with EBUSY: %s: %s" % (name, e))
            refused += 1
            continue
        sys.exit("got through: " + name)
print("refused", refused)
`

// TestDestroyers: while no worker serves, destroyers wait; they do not pass.
func TestDestroyers(t *testing.T) {
	both(t, func(t *testing.T, opts ...string) {
		h := harness.New(t)
		v := h.Mount(t, opts...)
		harness.Run(t, "mkdir", h.Image("vms")).OK(t)
		disk := harness.Disk{Target: "vda", File: h.Raw(t, "vms/vm.img", 64*harness.MiB)}
		other := h.Raw(t, "other.img", harness.MiB)
		g := h.Boot(t, "vm", disk)
		before := h.Identify(t, disk.File)
		g.StartWriting(t, "vda")
		whileKilling(t, v, func() {
			for end := time.Now().Add(*torture); time.Now().Before(end); {
				r := harness.Run(t, "python3", "-c", destroyers, disk.File, other, "5")
				t.Logf("destroyers: %s", r.OK(t))
			}
		})
		after := h.Identify(t, disk.File)
		if after.Ino != before.Ino || after.Size != before.Size || len(after.Names) != 1 {
			t.Errorf("image is %+v, was %+v", after, before)
		}
		unharmed(t, h, g, []harness.Disk{disk})
	})
}
