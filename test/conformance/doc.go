// SPDX-License-Identifier: Apache-2.0

// Package conformance tests that a file system keeps POSIX and the Linux man pages.
//
// The checks are in cases/*.txt, one file for each family of system calls, in the language of package script; what a
// line cannot say (shared memory, directory streams, random I/O) is in the tests beside this file. Everything runs on
// the same scratch file system through imgward, with kernel passthrough and without, and (IMGWARD_TEST_ALL=1) natively.
// Native is the control: what fails there is a broken test. After each case, what the view shows of every file is compared with the
// file itself.
//
//	go test ./test/conformance                                     all, on ext4
//	IMGWARD_TEST_FS=xfs go test ./test/conformance                 on XFS, btrfs or
//	                                                               overlay, which has no file handles
//	go test ./test/conformance -run TestCases/view/rename          one family
//	IMGWARD_TEST_TARGETS=native,bindfs go test ./test/conformance  another file system (they fail: so can these tests)
//	IMGWARD_TEST_DIR=/mnt/x go test ./test/conformance             in a directory of one's own
//	IMGWARD=/usr/bin/imgward go test ./test/conformance            an installed binary
//
// It needs root, for users, devices and mounts.
package conformance
