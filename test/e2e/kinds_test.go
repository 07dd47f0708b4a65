// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// byHand are VMMs that nobody told libvirt of. Each is given IMG and SOCK, and runs until it is stopped.
var byHand = []struct{ name, script string }{
	{"QEMU", `exec ` + bareQEMU + `-blockdev raw,node-name=a,file.driver=file,file.filename="$IMG"` + device},
	{"QEMU, read-only", `exec ` + bareQEMU + `-blockdev raw,node-name=a,read-only=on,file.driver=file,file.filename="$IMG"` + device},
	{"QEMU without locking", `exec ` + bareQEMU + `-blockdev raw,node-name=a,file.driver=file,file.locking=off,file.filename="$IMG"` + device},
	{"QEMU in namespaces of its own", `exec unshare -m -p -f --kill-child sh -c 'exec ` + bareQEMU +
		`-blockdev raw,node-name=a,file.driver=file,file.filename="$IMG"` + device + `'`},
	{"QEMU of a user namespace", `chmod 666 "$IMG"; exec unshare -U -r ` + bareQEMU +
		`-blockdev raw,node-name=a,file.driver=file,file.filename="$IMG"` + device},
	// Its executable is not the host's, as in a container: its locks tell.
	{"QEMU of a container", `cp "$(command -v qemu-system-x86_64)" "$OUT/vmm"
		exec env QEMU_MODULE_DIR=/usr/lib/x86_64-linux-gnu/qemu "$OUT/vmm" -L /usr/share/seabios -L /usr/share/qemu` + bareArgs +
		`-blockdev raw,node-name=a,file.driver=file,file.filename="$IMG"` + device},
	{"qemu-nbd", `exec qemu-nbd -t -f raw -k "$SOCK.nbd" "$IMG"`},
	{"qemu-storage-daemon", `exec qemu-storage-daemon --blockdev file,node-name=disk,filename="$IMG"
		--nbd-server addr.type=unix,addr.path="$SOCK.nbd" --export nbd,id=e,node-name=disk,writable=on`},
}

const (
	bareArgs = ` -nodefaults -display none -machine q35 -m 16 -S -monitor unix:"$SOCK",server=on,wait=off `
	device   = ` -device virtio-blk-pci,drive=a`
	bareQEMU = `qemu-system-x86_64` + bareArgs
)

// TestStartedByHand: whoever has an image open as a VMM protects it, libvirt or not, before and after the mount.
func TestStartedByHand(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.NewFiles(t)
	for _, early := range []bool{false, true} {
		var whole *harness.View
		if !early {
			whole = h.Mount(t)
		}
		for i, c := range byHand {
			t.Run(fmt.Sprintf("%s, before the view %v", c.name, early), func(t *testing.T) {
				image := h.Raw(t, "vm.img", 8*MiB)
				socket := filepath.Join(harness.Sockets, fmt.Sprintf("hand%d", i))
				script := strings.ReplaceAll(c.script, "\n\t\t--", " --")
				vmm := harness.Spawn(t, filepath.Join(h.Dir, "vmm.log"), "env", "IMG="+image, "OUT="+h.Out, "SOCK="+socket, "sh", "-c", script)
				harness.Until(t, c.name+" runs", func() bool {
					if !vmm.Alive() {
						t.Fatal(vmm.Logged(t))
					}
					return holding(t, image, strings.HasSuffix(c.name, "container"))
				})
				defer func() {
					left, _ := filepath.Glob(socket + "*")
					for _, path := range left {
						os.Remove(path)
					}
				}()
				v := (*harness.View)(nil)
				if early {
					v = h.Mount(t)
				}
				before := h.Identify(t, image)
				protected(t, image)
				unchanged(t, before, h.Identify(t, image))
				vmm.Kill(t) // unshare passes no other signal on
				harness.Until(t, "it can be removed", func() bool { return harness.Run(t, "rm", "-f", image).Exit == 0 })
				if v != nil {
					v.End(t)
				}
			})
		}
		if !early {
			whole.End(t)
		}
	}
}

// holding says whether some process has an image open, and QEMU's locks on it if they are wanted.
func holding(t *testing.T, image string, locks bool) bool {
	t.Helper()
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	open := slices.ContainsFunc(fds, func(fd string) bool {
		target, err := os.Readlink(fd)
		return err == nil && target == image
	})
	var st unix.Stat_t
	must(t, unix.Stat(image, &st))
	taken, err := os.ReadFile("/proc/locks")
	must(t, err)
	return open && (!locks || strings.Contains(string(taken), fmt.Sprintf(":%d 10", st.Ino)))
}
