// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stockInit is the guest's first process. Its script may be killed by a signal, so it is not exec'd.
const stockInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t securityfs securityfs /sys/kernel/security
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
for tty in 1 2 3; do stty -F /dev/ttyS$tty raw -echo; done
for module in /modules/*; do
	[ ! -e "$module" ] || insmod "$module" || { echo "insmod $module: $?" >/dev/ttyS0; poweroff -f; }
done
sh /script </dev/null >/dev/ttyS1 2>/dev/ttyS2
echo $? >/dev/ttyS3
for tty in 1 2 3; do stty -F /dev/ttyS$tty -echo; done # waits until all is sent
poweroff -f
`

const stockDirs = "/bin /dev /etc /mnt /modules /proc /root /run /sbin /sys /tmp /usr/bin /usr/sbin /var/lib /var/log /var/tmp"

// pack writes the initramfs.
func (s *Stock) pack(to, script string) error {
	archive := &cpio{}
	made := map[string]bool{".": true, "/": true}
	var mkdir func(dir string)
	mkdir = func(dir string) {
		if !made[dir] {
			mkdir(filepath.Dir(dir))
			archive.dir(strings.TrimPrefix(dir, "/"))
			made[dir] = true
		}
	}
	for _, dir := range strings.Fields(stockDirs) {
		mkdir(dir)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	archive.file("bin/busybox", busybox, 0o755)
	archive.entry("init", 0o100755, []byte(stockInit))
	archive.entry("script", 0o100755, []byte(script))
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", "group": "root:x:0:\nnogroup:x:65534:\n",
	} {
		archive.entry("etc/"+name, 0o100644, []byte(text))
	}
	modules, err := moduleFiles(s.modules)
	if err != nil {
		return err
	}
	for i, m := range modules {
		archive.file(fmt.Sprintf("modules/%03d-%s", i, filepath.Base(m)), m, 0o644)
	}
	for _, guest := range slices.Sorted(maps.Keys(s.files)) {
		if err := packTree(archive, mkdir, guest, s.files[guest]); err != nil {
			return err
		}
	}
	return archive.write(to)
}

// packTree adds a file, or all of a directory. What a link leads to is added in its place.
func packTree(archive *cpio, mkdir func(string), guest, here string) error {
	return filepath.WalkDir(here, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(guest, strings.TrimPrefix(path, here))
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			mkdir(to)
			return nil
		}
		mkdir(filepath.Dir(to))
		archive.file(strings.TrimPrefix(to, "/"), path, uint32(info.Mode().Perm()))
		return archive.err
	})
}

// libraries are the shared libraries that a program is linked with, its interpreter among them; none for a static one.
func libraries(t testing.TB, program string) []string {
	t.Helper()
	out, err := exec.Command("ldd", program).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil // "not a dynamic executable"
	}
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			found = append(found, word)
		}
	}
	return found
}
