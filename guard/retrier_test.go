// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"syscall"
	"testing"
)

// mount -o loop would ask again for ever.
func TestErrnoOfRetriers(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	h.domain("vm", h.run("vmm").PID, img)
	g := h.guard()
	for _, tc := range []struct {
		program string
		op      Op
		want    syscall.Errno
	}{
		{"mount", OpOpenWrite, syscall.ETXTBSY},
		{"losetup", OpOpenWrite, syscall.ETXTBSY},
		{"mount", OpUnlink, syscall.EBUSY},
		{"dd", OpOpenWrite, syscall.EBUSY},
	} {
		if v := h.refuse(g, h.request(tc.op, img, h.run(tc.program))); v.Errno != tc.want {
			t.Errorf("%s by %s: %v, want %v", tc.op, tc.program, v.Errno, tc.want)
		}
	}
	g = h.governed("errno = 'EACCES'")
	if v := h.refuse(g, h.request(OpOpenWrite, img, h.run("mount"))); v.Errno != syscall.EACCES {
		t.Errorf("the policy's errno became %v", v.Errno)
	}
}
