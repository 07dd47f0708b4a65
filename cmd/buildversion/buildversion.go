// SPDX-License-Identifier: Apache-2.0

// Package buildversion says which version a program is.
package buildversion

import "runtime/debug"

// Of is the version that the linker set; where it set none, as in a plain `go build` or `go install`, what the Go tool
// noted of the module: a tag, or the commit with "+dirty" if files were changed.
func Of(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
