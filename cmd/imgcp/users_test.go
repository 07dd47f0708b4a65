// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"imgward/guard"
)

// TestInterruptedQuestion: evidence on a file system that hangs does not keep anybody from giving up, and half an answer
// is none.
func TestInterruptedQuestion(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	if _, err := patiently(ctx, make(chan []guard.Use)); !errors.Is(err, errInterrupted) {
		t.Errorf("no answer: error %v", err)
	}
	answered := make(chan []guard.Use, 1)
	answered <- nil
	if uses, err := patiently(t.Context(), answered); uses != nil || err != nil {
		t.Errorf("answered: %v, error %v", uses, err)
	}
}

// TestAlone: that nobody has an image open but this process is the kernel's to say, and no process is looked at for it. The
// /proc here has a VMM with the image open that is not there.
func TestAlone(t *testing.T) {
	qemu, err := filepath.EvalSymlinks("/usr/bin/qemu-system-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(image, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	proc := filepath.Join(dir, "proc")
	if err := os.MkdirAll(proc+"/4711/fd", 0o700); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Symlink(qemu, proc+"/4711/exe"), os.Symlink(image, proc+"/4711/fd/9"),
		os.WriteFile(proc+"/4711/stat", fmt.Appendf(nil, "4711 (qemu) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 99 0 0\n"), 0o600),
		os.WriteFile(proc+"/4711/status", []byte("Tgid:\t4711\nPPid:\t1\nUid:\t0\t0\t0\t0\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(guard.Config{ProcRoot: proc, Brief: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	u := &users{g}
	for _, flags := range []int{os.O_RDONLY, os.O_RDWR} {
		f, err := os.OpenFile(image, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// A child of another test's has this test's descriptors, too, until it has executed its program.
		uses, err := u.InUse(t.Context(), f)
		for end := time.Now().Add(20 * time.Second); err == nil && len(uses) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			uses, err = u.InUse(t.Context(), f)
		}
		if err != nil || len(uses) > 0 {
			t.Errorf("open by nobody else: %v, error %v", uses, err)
		}
		other, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		if uses, err := u.InUse(t.Context(), f); err != nil || len(uses) != 1 || uses[0].PID != 4711 {
			t.Errorf("open elsewhere: %v, error %v; want the VMM", uses, err)
		}
		other.Close()
		f.Close()
	}
}
