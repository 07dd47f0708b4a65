// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"imgward/test/need"
)

// TestObject: the object that is committed is what its source compiles to.
func TestObject(t *testing.T) {
	need.Have(t, need.Tools("clang-14", "llvm-strip-14"), libbpf)
	out := filepath.Join(t.TempDir(), "guard.bpf.o")
	if text, err := exec.Command("bpf/build", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	built, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(built, object) {
		t.Error("guard.bpf.o is not what bpf/guard.bpf.c compiles to: run guard/lsm/bpf/build")
	}
}

func libbpf() *need.Lack {
	if _, err := os.Stat("/usr/include/bpf/bpf_helpers.h"); err != nil {
		return &need.Lack{What: "no libbpf headers", Do: "make deps installs what tests need"}
	}
	return nil
}
