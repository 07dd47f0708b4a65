// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"io"

	"imgward/cmd/imgward/onefs"
	"imgward/cmd/imgward/terminal"
	"imgward/fs/mounttable"
)

// backupsWithout lists the backups that will leave a view in place out.
func (f *Flags) backupsWithout(mountpoint string) (sure []onefs.Backup) {
	if f.Backing != mountpoint || f.exposed() != "" {
		return nil
	}
	t, err := mounttable.Now()
	if err != nil || onefs.LeftOutBefore(t, mountpoint) {
		return nil
	}
	for _, b := range onefs.Find("/", mountpoint) {
		if b.Sure {
			sure = append(sure, b)
		}
	}
	return sure
}

// tellBackups says that these will leave the view out: they exit with 0.
func tellBackups(w io.Writer, mountpoint string, sure []onefs.Backup) {
	if len(sure) == 0 {
		return
	}
	fmt.Fprintf(w, "imgward: WARNING: these stay on one file system, and will leave %s out from now on, and say nothing:\n", mountpoint)
	for _, b := range sure {
		fmt.Fprintf(w, "  %s: %s\n", b.Where, terminal.Safe(b.Command))
	}
	fmt.Fprintf(w, "imgward: name %s as a source of its own there, or mount with --expose-backing=DIR (imgward doctor)\n", mountpoint)
}
