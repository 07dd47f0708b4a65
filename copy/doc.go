// SPDX-License-Identifier: Apache-2.0

// Package imgcopy copies disk images block for block: from and to files, block devices and pipes.
//
// Package source says what an image is and whether it may be read now; package live makes one in use consistent. Package
// dest says what may be overwritten, where the bytes go and how they become visible. Package move carries the data. This
// package puts them together. Where to begin: copy.go is one copy from beginning to end, strategy.go what it tries, the
// cheapest first, with a file for each; stream.go is for pipes, streamoptions.go has what they cannot do; plan.go, resume.go
// and verify.go are what their names say; flatten.go (--flat) and header.go (--chain) are for images that need others;
// compare.go is for imgcp verify.
//
// The rules that every part keeps: nothing is touched before all evidence has been looked at; a name shows a whole image
// or none; what a caller is told is on the medium has been synced there.
package imgcopy
