// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlayOverTheView: an overlayfs stands on the view, and a status file names a file of it. To find out about that file
// the guard comes back to the view, by the very inode that it is asked about. Nobody waits for that.
func TestOverlayOverTheView(t *testing.T) {
	v := mount(t, "")
	base := filepath.Dir(v.policy)
	merged := filepath.Join(base, "merged")
	for _, dir := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", v.dir, filepath.Join(base, "upper"), filepath.Join(base, "work"))
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Error(err)
		}
	})
	image := v.image(t, "vm.img")
	vm := exec.Command("sleep", "1000")
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Process.Kill(); vm.Wait() })
	disk := fmt.Sprintf("<disk type='file'><source file='%s/vm.img'/><target dev='vda'/></disk>", merged)
	for round := range 20 {
		// As new to the guard and to the kernel each time.
		domain(t, "stacked", vm.Process.Pid, disk)
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 2)
		for _, way := range []string{image, filepath.Join(merged, "vm.img")} {
			go func() {
				_, err := os.ReadFile(way)
				read <- err
			}()
		}
		if err := os.Truncate(image, int64(4096*(round%2+1))); err != nil {
			t.Errorf("round %d: the file below the overlay is no image in use: %v", round, err)
		}
		for range 2 {
			if err := <-read; err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if out := v.run(t, "status", v.dir); strings.Contains(out, "does not answer") {
			t.Fatalf("round %d: who looked by way of the view has waited for it:\n%s", round, out)
		}
	}
	// A VMM that has it open through the overlay has it open through the view.
	reader := exec.Command(filepath.Join(t.TempDir(), "qemu-system-x86_64"), "-f", filepath.Join(merged, "vm.img"))
	if out, err := exec.Command("cp", "/usr/bin/tail", reader.Path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Process.Kill(); reader.Wait() })
	until(t, "the file below the overlay is in use", func() bool { return errors.Is(os.Truncate(image, 4096), unix.EBUSY) })
}
