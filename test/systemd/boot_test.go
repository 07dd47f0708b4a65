// SPDX-License-Identifier: Apache-2.0

// Package systemd runs imgward@.service under a real systemd: booted in a pid and mount namespace of its own, with this
// host's files under an overlay. What happens there leaves the host as it is.
package systemd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imgward/test/need"
)

// booted is a host with systemd and journald.
type booted struct {
	pid string // of its systemd
}

// bootScript makes the root and becomes systemd. It has no console and no kernel log: those are the real host's.
const bootScript = `set -e
mount -t tmpfs none $1
mkdir $1/upper $1/work $1/root
mount -t overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work overlay $1/root
cd $1/root
mount -t tmpfs -o mode=755 none dev
for n in null zero full random urandom tty fuse kvm; do
    [ ! -e /dev/$n ] || { touch dev/$n; mount --bind /dev/$n dev/$n; }
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,mode=620,ptmxmode=666 none dev/pts
ln -s pts/ptmx dev/ptmx
touch dev/console
mount --bind /dev/null dev/console
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for d in run tmp home srv; do mount -t tmpfs -o mode=755 none $d; done
rm -rf var/log/journal
"$2" --files | while read -r f; do rm -rf ".$f"; done # what the host has of imgward
cat >etc/systemd/system/imgtest.target <<EOF
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
EOF
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' >etc/systemd/journald.conf
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
mount --make-rshared /
exec env -i container=imgward-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=imgtest.target --log-target=journal --show-status=0`

func boot(t *testing.T) *booted {
	t.Helper()
	need.Have(t, append(need.View(), need.Tools("systemd-analyze", "unshare", "nsenter"))...)
	dir := t.TempDir()
	leftovers, err := filepath.Abs("../scripts/leftovers")
	if err != nil {
		t.Fatal(err)
	}
	b := &booted{}
	cmd := exec.Command("unshare", "--fork", "--pid", "--mount", "--cgroup", "--mount-proc", "--propagation", "slave",
		"--kill-child", "sh", "-c", bootScript, "sh", dir, leftovers)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	until(t, "systemd is process 1", func() bool {
		b.pid = childOf(cmd.Process.Pid)
		comm, _ := os.ReadFile("/proc/" + b.pid + "/comm")
		return string(comm) == "systemd\n"
	}, func() string { return said.String() })
	until(t, "systemd is up", func() bool {
		state, _ := b.try("systemctl is-system-running; systemctl is-active systemd-journald")
		return state == "running\nactive"
	}, func() string { return said.String() })
	return b
}

// childOf is the pid of a process's only child, "" if there is none.
func childOf(pid int) string {
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return strings.TrimSpace(string(list))
}

// enter runs a command in the booted host.
func (b *booted) enter(args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter", append([]string{"-t", b.pid, "-m", "-p", "-C"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// try runs a shell command there, and returns what it says.
func (b *booted) try(command string) (string, error) {
	out, err := b.enter("timeout", "40", "sh", "-c", command).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (b *booted) run(t *testing.T, command string) string {
	t.Helper()
	out, err := b.try(command)
	if err != nil {
		log, _ := b.try("journalctl --no-pager -o short-monotonic | tail -40")
		t.Fatalf("%s: %v\n%s\njournal:\n%s", command, err, out, log)
	}
	return out
}

// install puts the program and the unit where a package puts them.
func (b *booted) install(t *testing.T) {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatalf("build: %v: %s", err, bin)
	}
	for from, to := range map[string]string{
		bin:                                   "/usr/bin/imgward",
		"../../dist/systemd/imgward@.service": "/usr/lib/systemd/system/imgward@.service",

		"../../dist/systemd/imgward-metrics.service": "/usr/lib/systemd/system/imgward-metrics.service",
		"../../dist/systemd/imgward-metrics.timer":   "/usr/lib/systemd/system/imgward-metrics.timer",
	} {
		b.give(t, from, to)
	}
	b.run(t, "chmod 755 /usr/bin/imgward && systemctl daemon-reload")
}

func (b *booted) give(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := b.enter("sh", "-c", `rm -f "$1" && cat >"$1"`, "sh", to)
	cmd.Stdin = f
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// property reads one of a unit's.
func (b *booted) property(t *testing.T, unit, name string) string {
	t.Helper()
	return b.run(t, "systemctl show --value -p "+name+" "+unit)
}

func (b *booted) mainPID(t *testing.T, unit string) int {
	t.Helper()
	pid, _ := strconv.Atoi(b.property(t, unit, "MainPID"))
	return pid
}

var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("IMGWARD_BIN"); dir != "" {
		return filepath.Join(dir, "imgward"), nil
	}
	bin := filepath.Join(os.TempDir(), "imgward-systemd-test", "imgward")
	cmd := exec.Command("go", "build", "-o", bin, "imgward/cmd/imgward")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		bin = string(out)
	}
	return bin, err
})

// until waits for what is to become true; after a while it fails, with what else there is to say.
func until(t *testing.T, what string, ready func() bool, said func() string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s\n%s", what, said())
		}
	}
}
