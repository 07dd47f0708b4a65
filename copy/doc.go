// Package imgcopy copies disk images block for block: from and to files, block devices and pipes.
//
// A copy is made of three parts. The source says what it is and whether it may be read now (source.go, live). The
// target says what may be overwritten, where the bytes go and how they become visible (target.go and the files that
// implement it: fresh, inplace, device, stream). Between them a ladder of methods moves each extent in the cheapest way
// that both sides can do (ladder.go: clone, copy_file_range, read and write).
//
// The rules that every part keeps: nothing is touched before all evidence has been looked at; a name shows a whole image
// or none; what a caller is told is on the medium has been synced there.
package imgcopy
