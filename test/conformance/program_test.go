// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// runProgram copies a program and runs it: the kernel maps it, and its interpreter, from the file system under test.
func runProgram(t *testing.T, dir string) {
	data, err := os.ReadFile("/bin/echo")
	if err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(dir, "echo")
	if err := os.WriteFile(prog, data, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(prog, "hello").Output()
	if err != nil || string(out) != "hello\n" {
		t.Errorf("%q, %v", out, err)
	}
}
