// SPDX-License-Identifier: Apache-2.0

package sys

import (
	"errors"
	"os"
	"testing"
)

// TestReplaceIfBeaten: a file that took the name while another one was being put back there loses the name, but is not removed.
func TestReplaceIfBeaten(t *testing.T) {
	path := t.TempDir()
	write := func(name string) {
		if err := os.WriteFile(path+"/"+name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ours", "there", "third"} {
		write(name)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	refused := errors.New("not this one")
	err = ReplaceIf(dir, "ours", "there", func(string) error {
		return errors.Join(refused, os.Rename(path+"/third", path+"/there"))
	})
	if !errors.Is(err, refused) || !errors.Is(err, ErrNotPutBack) {
		t.Errorf("error %v", err)
	}
	for name, want := range map[string]string{"there": "there", "ours": "third"} {
		if b, err := os.ReadFile(path + "/" + name); string(b) != want {
			t.Errorf("%s holds %q, want %q (%v)", name, b, want, err)
		}
	}
}
