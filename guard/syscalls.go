// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// ignoringEINTR repeats a call that a signal interrupted; the Go runtime sends itself SIGURG all the time.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func procSelfFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
