// SPDX-License-Identifier: Apache-2.0

package guard

import "testing"

func TestNextName(t *testing.T) {
	for name, want := range map[string]string{
		"vm-disk2.img": "vm-disk3.img", "a09.raw": "a10.raw", "a99.raw": "a100.raw", "vm.img": "vm-2.img",
		"disk.1": "disk.2", "vm": "vm-2", "vm2": "vm3", "vm.qcow2": "vm-2.qcow2", ".img": ".img-2",
		"db1-copy.img": "db2-copy.img", "x99999999999999999999.img": "x100000000000000000000.img", "ü1.img": "ü2.img",
		"vm.2024.img": "vm.2025.img", "2": "3", "a.b.c": "a.b-2.c",
	} {
		if got := nextName(name); got != want {
			t.Errorf("after %s comes %s, want %s", name, got, want)
		}
	}
}
