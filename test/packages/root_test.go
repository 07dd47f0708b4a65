// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/test/need"
)

// root is a Debian of its own: this host's under an overlay, in a mount namespace, with a /run, a package database and an
// image directory that are nobody else's, and without imgward, whatever the host has of it. What is done there leaves the
// host as it is.
type root struct {
	dir string
	pid string // of the process that holds the namespace
}

const images = "/var/lib/images"

func newRoot(t *testing.T) *root {
	t.Helper()
	need.Have(t, need.View()...)
	r := &root{dir: t.TempDir()}
	leftovers, err := filepath.Abs("../scripts/leftovers") // knows where imgward's files are
	if err != nil {
		t.Fatal(err)
	}
	// What other suites have mounted could not go while this namespace shows it (where / is not shared, no umount gets here).
	script := `set -e
findmnt -rno TARGET,SOURCE,FSTYPE | while read -r target source type; do
	case "$source $type" in /dev/loop*|*" fuse."*)
		case "$1/" in "$target"/*) ;; *) umount -l "$target" || : ;; esac
	esac
done
mount -t tmpfs none $1
mkdir $1/upper $1/work $1/root
mount -t overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work overlay $1/root
cd $1/root
for d in proc sys dev; do mount --rbind /$d $d; done
mkdir -p .` + images + `
for d in run tmp var/log var/lib/dpkg .` + images + `; do mount -t tmpfs none $d; done
mkdir -p run/lock var/lib/dpkg/info var/lib/dpkg/updates
touch var/lib/dpkg/status
"$2" --files | while read -r f; do rm -rf ".$f"; done
echo ready
exec sleep 600`
	cmd := exec.Command("unshare", "-m", "--propagation", "slave", "sh", "-c", script, "sh", r.dir, leftovers)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	buf := make([]byte, 6)
	if n, err := out.Read(buf); string(buf[:n]) != "ready\n" {
		t.Fatalf("the root is not ready: %v", err)
	}
	r.pid = fmt.Sprint(cmd.Process.Pid)
	return r
}

// try runs a shell command in the root, and returns what it says.
func (r *root) try(command string) (string, error) {
	cmd := exec.Command("nsenter", "-t", r.pid, "-m", "chroot", filepath.Join(r.dir, "root"), "sh", "-c", command)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	// Nothing may wait for a daemon that has inherited a pipe.
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (r *root) run(t *testing.T, command string) string {
	t.Helper()
	out, err := r.try(command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// give copies a file into the root.
func (r *root) give(t *testing.T, file, to string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nsenter", "-t", r.pid, "-m", "sh", "-c", `cat >"$1"`, "sh", filepath.Join(r.dir, "root", to))
	cmd.Stdin = strings.NewReader(string(text))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", file, err, out)
	}
}

// startVM starts a VM on an image of the view, and returns its pid.
func (r *root) startVM(t *testing.T) string {
	t.Helper()
	vm := r.run(t, `qemu-system-x86_64 -machine pc,accel=tcg -m 32 -S -display none -nodefaults -daemonize -pidfile /run/vm.pid \
		-drive if=virtio,format=raw,file=`+images+`/vm.img && cat /run/vm.pid`)
	t.Cleanup(func() { r.try("kill " + vm) })
	return vm
}

func (r *root) stopVM(t *testing.T, vm string) {
	t.Helper()
	r.run(t, "kill "+vm)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := r.try("kill -0 " + vm); err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("QEMU does not end")
		}
	}
}
