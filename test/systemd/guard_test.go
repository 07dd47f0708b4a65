// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

const guardService = "imgward-guard.service"

// TestGuardUnit: systemd holds the claims while a worker is killed and replaced, and lets go of them when the unit is stopped.
func TestGuardUnit(t *testing.T) {
	need.Have(t, need.Loops)
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", file).CombinedOutput()
	device := strings.TrimSpace(string(out))
	if err != nil {
		t.Fatalf("losetup: %v: %s", err, device)
	}
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", device).Run() })
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		t.Fatal(err)
	}
	b := boot(t)
	b.install(t)
	b.give(t, "../../dist/systemd/"+guardService, "/usr/lib/systemd/system/"+guardService)
	b.run(t, fmt.Sprintf("mknod %s b %d %d", device, unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	b.run(t, "systemctl daemon-reload && systemctl start "+guardService)
	vm := b.run(t, `qemu-system-x86_64 -machine pc,accel=tcg -m 32 -S -display none -nodefaults -daemonize -pidfile /run/vm.pid \
		-blockdev driver=host_device,node-name=d,filename=`+device+` -device virtio-blk-pci,drive=d && cat /run/vm.pid`)
	held := func() bool {
		line, _ := b.try("imgward status --json | grep '\"hold\"'")
		return strings.Contains(line, device) && !strings.Contains(line, `"left"`)
	}
	await := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("in vain: %s\n%s", what, b.journal())
			}
		}
	}
	refused := func() {
		t.Helper()
		if out, err := b.try("wipefs -a " + device); err == nil || !strings.Contains(out, "busy") {
			t.Errorf("wipefs: %v: %s", err, out)
		}
	}
	await("the device is claimed", held)
	refused()
	first := b.mainPID(t, guardService)
	b.run(t, fmt.Sprintf("kill -9 %d", first))
	refused() // systemd holds it
	await("a successor serves", func() bool { pid := b.mainPID(t, guardService); return pid != 0 && pid != first && held() })
	refused()
	b.run(t, "systemctl stop "+guardService)
	b.run(t, "wipefs -a "+device)
	if left, _ := b.try("ls -d /run/imgward/@guard"); !strings.Contains(left, "No such file") {
		t.Errorf("left behind: %s", left)
	}
	if log := b.journal(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the journal:\n%s", log)
	}
	b.run(t, "kill "+vm)
}
