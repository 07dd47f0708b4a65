package main

import (
	"path/filepath"
	"strings"
)

// helperName is the name under which mount(8) starts this program for `mount -t imgward` and fstab lines.
const helperName = "mount.imgward"

// arguments are those of the command line. As mount's helper, which is called with mount(8)'s own
//
//	mount.imgward SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
//
// they become those of `imgward mount`: SOURCE is the directory to show. "imgward" or "none" there, or DIR itself, is the
// view in place.
func arguments(args []string) []string {
	if filepath.Base(args[0]) != helperName {
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
				out = append(out, "-o", ownOptions(args[i]))
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

// ownOptions leaves out what mount(8) passes on though it is not for the helper. "rw" it adds always, asked for or not; a
// view is as writable as what it shows.
func ownOptions(options string) string {
	var own []string
	for _, o := range strings.Split(options, ",") {
		if o != "rw" && o != "" && o != "users" && o != "owner" && o != "group" && o != "loud" {
			own = append(own, o)
		}
	}
	return strings.Join(own, ",")
}
