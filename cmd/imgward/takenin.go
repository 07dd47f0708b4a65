// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	viewfs "imgward/fs"
)

// takeOut prepares that file systems which became part of a view are where they were mounted once it has ended. It returns
// what mounts them there.
func takeOut(ctx context.Context, name string) (giveBack func(), err error) {
	dirs := control.TakenIn(name)
	if len(dirs) == 0 {
		return func() {}, nil
	}
	v, err := control.Dial(name).View(ctx)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/proc/%d/fd/%d", v.PID, v.TreeFD)
	tree, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open the backing tree", Path: path, Err: err}
	}
	defer unix.Close(tree)
	var list []*viewfs.TakenIn
	for i, dir := range dirs {
		above := func(other string) bool { return dir == other || strings.HasPrefix(dir, other+"/") }
		if slices.ContainsFunc(dirs[:i], above) {
			continue // it comes with that
		}
		taken, err := viewfs.TakeOut(tree, name, dir)
		if err != nil {
			fmt.Fprintf(os.Stderr, "imgward: %v\n", err) // the view can be ended without
			continue
		}
		list = append(list, taken)
	}
	return func() {
		for _, taken := range list {
			if err := taken.Return(); err != nil {
				fmt.Fprintf(os.Stderr, "imgward: %v\n", err)
			}
		}
		control.ForgetTakenIn(name)
	}, nil
}
