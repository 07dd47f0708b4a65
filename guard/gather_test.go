// SPDX-License-Identifier: Apache-2.0

package guard

import "testing"

// TestUncertainIsNoAnswer: a process that cannot be looked at may be anything, so QEMU's locks are looked at all the same.
// They say that a disk is being written.
func TestUncertainIsNoAnswer(t *testing.T) {
	answer := func(u Use) func(*question) []Use { return func(*question) []Use { return []Use{u} } }
	locks := source{find: answer(Use{Evidence: EvidenceLock, Writable: true}), costly: true}
	q := &question{Request: &Request{}}
	for _, c := range []struct {
		first Use
		want  int
	}{{Use{PID: 1, Evidence: EvidenceProcess, doubt: stuck}, 2}, {Use{PID: 1, Evidence: EvidenceProcess}, 1}} {
		if uses := q.gather([]source{{find: answer(c.first)}, locks}); len(uses) != c.want {
			t.Errorf("doubt: %v: %d uses, want %d: %+v", c.first.doubt, len(uses), c.want, uses)
		}
	}
}
