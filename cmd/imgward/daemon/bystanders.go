// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/bystander"
	"imgward/cmd/imgward/terminal"
	"imgward/guard"
)

// covered is the directory that a view in place is about to cover; zero for one of another directory, which covers nothing
// that anybody wants.
func (f *Flags) covered(mountpoint string) guard.ID {
	var st unix.Stat_t
	if f.Backing != mountpoint || unix.Stat(mountpoint, &st) != nil {
		return guard.ID{}
	}
	return guard.StatID(&st)
}

// tellBystanders says who stood in the directory before the view was mounted, and has it told to them: an administrator's
// shell has often been there, and it bypasses the view.
func tellBystanders(w io.Writer, mountpoint string, covered guard.ID) {
	if covered == (guard.ID{}) {
		return
	}
	list := bystander.Of(context.Background(), covered)
	if len(list) == 0 {
		return
	}
	name := terminal.Safe(mountpoint)
	bystander.Tell(list, fmt.Sprintf("imgward: %s is protected now, but not from this shell, which was in it before. Enter it again: cd .", name))
	fmt.Fprintf(w, "imgward: %s is protected, but not from these processes, which were in it before and bypass the view:\n", name)
	for _, p := range list {
		fmt.Fprintf(w, "  %s\n", &p)
	}
	fmt.Fprintln(w, "imgward: in such a shell, enter the directory again: cd .")
}
