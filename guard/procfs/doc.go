// SPDX-License-Identifier: Apache-2.0

// Package procfs reads from /proc who a process is and what it has open.
//
// A pid alone names nobody for long, so a process is always the pair of its pid and its start time. A name proves
// nothing either (anybody may call a program qemu-system-x86_64), so a process is what its executable's inode is.
package procfs
