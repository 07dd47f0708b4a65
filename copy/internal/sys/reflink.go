// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// reflinkAttr is how an imgward view says whether copy_file_range(2) shares blocks there (imgward/fs: ReflinkAttr).
const reflinkAttr = "system.imgward.reflink"

// Reflinks says whether a FUSE file system shares blocks when it is asked to copy them. known is false where it does not
// say: it is no imgward view.
func Reflinks(f *os.File) (yes, known bool) {
	var answer [1]byte
	err := onFile("getxattr", f, func(fd int) error {
		_, err := unix.Fgetxattr(fd, reflinkAttr, answer[:])
		return err
	})
	return answer[0] == '1', err == nil
}
