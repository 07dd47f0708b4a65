// SPDX-License-Identifier: Apache-2.0

package block

import (
	"errors"
	"strings"
	"testing"
)

func filled(disk string, lba, seq uint64) []byte {
	b := make([]byte, Size)
	Fill(b, disk, lba, seq)
	return b
}

func TestParseTellsDamageApart(t *testing.T) {
	flipped := filled("vda", 7, 3)
	flipped[2000] ^= 1
	mixed := append(filled("vda", 7, 3)[:2048:2048], filled("vda", 7, 4)[2048:]...)
	foreign := make([]byte, Size)
	foreign[9] = 1
	for _, c := range []struct {
		name  string
		block []byte
		want  error
	}{
		{"as written", filled("vda", 7, 3), nil},
		{"zeroes", make([]byte, Size), ErrZero},
		{"one bit flipped", flipped, ErrTorn},
		{"halves of two writes", mixed, ErrTorn},
		{"another disk", filled("vdb", 7, 3), ErrForeign},
		{"another place", filled("vda", 8, 3), ErrForeign},
		{"not ours", foreign, ErrForeign},
	} {
		seq, err := Parse(c.block, "vda", 7)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.want)
		}
		if err == nil && seq != 3 {
			t.Errorf("%s: write %d, want 3", c.name, seq)
		}
	}
}

func TestAccount(t *testing.T) {
	a := NewAccount("vda")
	a.Issue(5) // write 1
	a.Synced()
	a.Issue(5) // write 2, not synced
	a.Issue(6) // write 3, not synced, nothing durable there before
	for _, c := range []struct {
		name  string
		lba   uint64
		block []byte
		want  string
	}{
		{"durable write", 5, filled("vda", 5, 1), ""},
		{"write that was not synced", 5, filled("vda", 5, 2), ""},
		{"durable write gone", 5, make([]byte, Size), "all zeroes"},
		{"write of the future", 5, filled("vda", 5, 9), "last one issued"},
		{"never durable, zeroes", 6, make([]byte, Size), ""},
		{"unknown place", 99, filled("vdb", 1, 1), ""},
	} {
		err := a.Check(c.lba, c.block)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	a.Synced()
	if err := a.Check(5, filled("vda", 5, 1)); err == nil || !strings.Contains(err.Error(), "lost write") {
		t.Errorf("older write after the newer one was synced: %v, want a lost write", err)
	}
	a.Forget(5, 6)
	if err := a.Check(5, make([]byte, Size)); err != nil {
		t.Errorf("discarded place: %v", err)
	}
}
