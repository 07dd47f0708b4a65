// SPDX-License-Identifier: Apache-2.0

package viewfs

import _ "unsafe" // for go:linkname

// yield lets other goroutines of this processor run, and is only called for its side effect: Go's scheduler counts.
//
// A goroutine that does nothing but system calls never comes to the scheduler. After 10 ms of that, Go's monitor takes it
// for one that does not let go of its processor, and takes that away in every system call, each 20 µs (retake in
// runtime/proc.go: sysretake, since Go 1.12; seen in 1.26). Readers then find no processor when they come back from read(2), and wake the
// monitor by a futex(2), which goes to sleep again when nothing runs. Counted (voluntary context switches of the daemon for
// each operation): open for writing and close 5.6 without and 4.4 with it, link and unlink 9.1 and 6.0.
//
// runtime.Gosched would do as well, but it wakes another thread to look for work.
//
//go:linkname yield runtime.goyield
func yield()
