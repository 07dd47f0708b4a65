// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// helperNames are the names under which mount(8) starts this program: for `mount -t imgward`, for the type that a view
// has in the mount table, which it takes for fstab lines and remounts, and for libfuse 3's way to write that.
var helperNames = []string{"mount.imgward", "mount.fuse.imgward", "mount.fuse3.imgward"}

// arguments are those of the command line. As mount's helper, which is called with mount(8)'s own
//
//	mount.imgward SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//
// they become those of `imgward mount`: SOURCE is the directory to show. "imgward" or "none" there, or DIR itself, is the
// view in place. Without a mount.fuse.imgward, libfuse's mount.fuse calls this program by its own name in that way.
func arguments(args []string) []string {
	byFuse := calledByFuse(args)
	if !byFuse && !slices.Contains(helperNames, filepath.Base(args[0])) {
		return args[1:]
	}
	var places, out []string
	fake := false
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--help" || a == "-h":
			return []string{"mount", "--help"}
		case a == "-o" || a == "-t" || a == "-N":
			i++
			if a == "-o" && i < len(args) {
				out = append(out, "-o", ownOptions(args[i], byFuse))
			}
		case strings.HasPrefix(a, "-") && strings.Trim(a[1:], "sfnv") == "":
			fake = fake || strings.Contains(a, "f")
		default:
			places = append(places, a)
		}
	}
	if len(places) == 2 {
		if source := places[0]; source != "imgward" && source != "none" && source != places[1] {
			out = append(out, "--backing", source)
		}
		places = places[1:]
	}
	if fake { // mount(8)'s dry run: there is nothing to do, and nothing to complain about
		return []string{"version"}
	}
	return append(append([]string{"mount"}, out...), append([]string{"--"}, places...)...)
}

// calledByFuse says whether this is mount.fuse's `imgward SOURCE DIR -o OPTIONS`. No subcommand is called so.
func calledByFuse(args []string) bool {
	return len(args) == 5 && args[3] == "-o" && filepath.IsAbs(args[2]) && (filepath.IsAbs(args[1]) || args[1] == "none" || args[1] == "imgward")
}

// ownOptions leaves out what mount(8) passes on though it is not for the helper. "rw" it adds always, asked for or not; a
// view is as writable as what it shows. mount.fuse adds "dev,suid" for root, which nobody has asked for either. At a
// remount mount(8) repeats what the mount table says, the kernel's own options for FUSE among it.
func ownOptions(options string, byFuse bool) string {
	list := strings.Split(options, ",")
	remount := slices.Contains(list, "remount")
	var own []string
	for _, o := range list {
		name, _, _ := strings.Cut(o, "=")
		switch name {
		case "", "users", "owner", "group", "loud":
		case "rw":
			if remount {
				own = append(own, o)
			}
		case "dev", "suid":
			if !byFuse {
				own = append(own, o)
			}
		case "user_id", "group_id", "default_permissions", "allow_other", "max_read", "rootmode", "fd":
			if !remount {
				own = append(own, o) // an error: nobody may ask for those
			}
		default:
			own = append(own, o)
		}
	}
	return strings.Join(own, ",")
}
