// SPDX-License-Identifier: Apache-2.0

package libvirt

import "testing"

func FuzzPIDFile(f *testing.F) {
	for _, s := range []string{"1234\n", "1234", "", "\n", "-1\n", "0\n", "12 34\n", "99999999999999999999\n", "1\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if pid, ok := parsePIDFile(text); ok && pid <= 0 {
			t.Errorf("%q is process %d", text, pid)
		}
	})
}

func TestPIDFile(t *testing.T) {
	for text, want := range map[string]int{"1234\n": 1234, "7": 7, "": 0, "x\n": 0, "-3\n": 0, "0\n": 0, "12 34\n": 0} {
		if pid, ok := parsePIDFile([]byte(text)); ok != (want > 0) || ok && pid != want {
			t.Errorf("%q is %d, %v", text, pid, ok)
		}
	}
}
