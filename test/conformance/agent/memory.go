// SPDX-License-Identifier: Apache-2.0

package agent

import "unsafe"

func isAligned(b []byte, to uintptr) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%to == 0
}
