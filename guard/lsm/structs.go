// SPDX-License-Identifier: Apache-2.0

package lsm

// The structures of bpf/shared.h, by the same names.

type op uint32

const (
	opWrite op = iota + 1
	opTruncate
	opUnlink
	opRename
	opReplace
	opWriteData
	opSetFlags
	opUmount
	opMove
	opCover
)

// Class is what a process is, or a program makes of the process that executes it: a set.
type Class uint32

// The classes.
const (
	VMM     Class = 1 << iota
	Manager       // and what it starts
	Trusted       // imgward itself, and what the policy trusts
	Storage       // manages the devices below those that are in use: LVM, multipath, boot loaders
	Holder        // a running domain's process; of a process alone
)

const (
	imageUsed = 1 << iota
	imageBelow
	imageMany
	imageAlways
	imageDefined
	imageAudit
)

const maxHolders = 8

type settings struct{ Audit, Deny, Generation, _ uint32 }

type allowance struct {
	Until, Exception                 uint64
	Ops, UID, Login, Once, User, Pad uint32
}

type image struct {
	ID, Flags, Deny, Generation uint32
	Holders                     [maxHolders]uint32
	Allowance                   allowance
}

type process struct {
	Start uint64
	Class Class
	_     uint32
}

type number struct {
	Ino        uint64
	Dev        uint32
	Generation uint32
}

type view struct{ Opens, Namespace uint64 }

const (
	eventRefused = iota + 1
	eventAllowed
	eventOpened
	eventClosed
)

type event struct {
	Kind                                                uint32
	Op                                                  op
	ID, Dev                                             uint32
	Ino, Start, Exception                               uint64
	Rdev, PID, UID, Class, TTY, Errno, Audit, Namespace uint32
	Comm                                                [16]byte
	Name                                                [256]byte
}

type counters struct{ Refusals, Lost uint64 }
