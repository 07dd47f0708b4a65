// SPDX-License-Identifier: Apache-2.0

package block

import (
	"errors"
	"fmt"
)

// Span is what a place may hold: any write from Durable to Latest. Durable 0 means that nothing written there has been
// synced yet, so that what was there before (zeroes) may still be.
type Span struct {
	Durable uint64 `json:"d"`
	Latest  uint64 `json:"l"`
}

// Account is the writer's own account of a disk: which writes it issued, and which of them a completed fsync made
// durable. It is what an image is checked against after daemons were killed, guests destroyed or chains merged.
// It is not safe for use by several goroutines at once.
type Account struct {
	Disk   string          `json:"disk"`
	Blocks map[uint64]Span `json:"blocks"`
	Seq    uint64          `json:"seq"` // the last write issued

	dirty []uint64 // places written since the last Synced
}

// NewAccount returns an empty account of a disk.
func NewAccount(disk string) *Account {
	return &Account{Disk: disk, Blocks: make(map[uint64]Span)}
}

// Issue notes that place lba is about to be written and returns the number of that write.
func (a *Account) Issue(lba uint64) (seq uint64) {
	a.Seq++
	s := a.Blocks[lba]
	s.Latest = a.Seq
	a.Blocks[lba] = s
	a.dirty = append(a.dirty, lba)
	return a.Seq
}

// Synced notes that an fsync which began after the last Issue has succeeded.
func (a *Account) Synced() {
	for _, lba := range a.dirty {
		s := a.Blocks[lba]
		s.Durable = s.Latest
		a.Blocks[lba] = s
	}
	a.dirty = a.dirty[:0]
}

// Forget drops the places [from, to): they were discarded, and hold what the disk likes.
func (a *Account) Forget(from, to uint64) {
	for lba := range a.Blocks {
		if lba >= from && lba < to {
			delete(a.Blocks, lba)
		}
	}
}

// Check says what is wrong with b, found at place lba; nil if the account allows it. Places that the account does not
// know are not judged.
func (a *Account) Check(lba uint64, b []byte) error {
	want, known := a.Blocks[lba]
	if !known {
		return nil
	}
	seq, err := Parse(b, a.Disk, lba)
	switch {
	case errors.Is(err, ErrZero) && want.Durable == 0:
		return nil
	case err != nil:
		return fmt.Errorf("%s block %d: %w; write %d was durable", a.Disk, lba, err, want.Durable)
	case seq < want.Durable:
		return fmt.Errorf("%s block %d: lost write: holds %d, but %d was durable", a.Disk, lba, seq, want.Durable)
	case seq > want.Latest:
		return fmt.Errorf("%s block %d: holds write %d, but the last one issued is %d", a.Disk, lba, seq, want.Latest)
	}
	return nil
}
