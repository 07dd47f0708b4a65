// SPDX-License-Identifier: Apache-2.0

package chain

import "strings"

// resolve makes a path of a reference in the header of the image at base. False: it is no file of this host.
//
// A relative name is relative to the directory of the name by which the image above was opened, not of what a symbolic
// link leads to; ".." stays for the kernel to resolve (path_combine in QEMU's block.c). One with a colon before its
// first slash has a protocol in front.
func (r ref) resolve(base string) (string, bool) {
	name := r.name
	if protocol, rest, ok := cutProtocol(name); ok && !r.literal {
		switch protocol {
		case "file", "host_device", "host_cdrom":
			name = rest
		default:
			return "", false
		}
	}
	switch {
	case name == "" || strings.IndexByte(name, 0) >= 0:
		return "", false
	case name[0] == '/':
		return name, true
	case r.literal: // relative to wherever QEMU runs, which is not known
		return "", false
	}
	return base[:strings.LastIndexByte(base, '/')+1] + name, true
}

func cutProtocol(name string) (protocol, rest string, ok bool) {
	i := strings.IndexAny(name, ":/")
	if i < 0 || name[i] != ':' {
		return "", name, false
	}
	return name[:i], name[i+1:], true
}
