// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/isolate"
)

// otherEnv makes the test binary pid 1 of another host: it names that host's directory.
const otherEnv = "IMGWARD_SANDBOX_OTHER"

// Other is another host with the same storage: a libvirtd in mount, pid and UTS namespaces of its own, with a /run, a libvirt
// and a host name of its own, and h's directory of images without whatever view there is over it on h. Domains and views on
// it are made as on any host; what else is to run there does so by Exec.
//
// The test itself sees all processes; two others do not see each other's. A test about hosts that must not therefore makes
// two of them.
func (h *Host) Other(t testing.TB, name string) *Host {
	t.Helper()
	o := &Host{Dir: filepath.Join(h.Dir, name), Images: h.Images, beneath: h.beneath}
	o.Out = filepath.Join(o.Dir, "out")
	for _, dir := range []string{o.Dir, o.Out} {
		if err := errors.Join(os.Mkdir(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range libvirtDirs {
		if err := cloneDirs(dir, filepath.Join(o.Dir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	// libvirt takes two hosts with one UUID for the same.
	conf := libvirtdConf + fmt.Sprintf("host_uuid = \"%s\"\n", hostUUID(t))
	if err := os.WriteFile(filepath.Join(o.Dir, "etc/libvirt/libvirtd.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), otherEnv+"="+o.Dir)
	log, err := os.Create(filepath.Join(o.Dir, "host.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // everything on it ends with its pid 1
		cmd.Process.Kill()
		cmd.Wait()
		o.keepLogs(t)
	})
	pid := itoa(cmd.Process.Pid)
	o.root = filepath.Join("/proc", pid, "root")
	o.enter = []string{"nsenter", "-t", pid, "-m", "-p", "-u", "--"}
	Until(t, name+"'s libvirtd answers", func() bool {
		return o.hasRun() && o.Virsh(t, "version").Exit == 0
	})
	return o
}

// URI is how libvirt on this or another host reaches the libvirtd of this one.
func (h *Host) URI() string { return "qemu:///system?socket=" + h.root + "/run/libvirt/libvirt-sock" }

// RemoteURI is the same for virsh as client of two libvirtds, which takes URI for its own host's.
func (h *Host) RemoteURI() string { return strings.Replace(h.URI(), "qemu:", "qemu+unix:", 1) }

// hasRun reports whether the host has made its own mounts: before, its libvirt directories are still those it came from.
func (h *Host) hasRun() bool {
	_, err := os.Stat(filepath.Join(h.root, "run/other"))
	return err == nil
}

func hostUUID(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// runOther is pid 1 of another host. It ends when it is killed.
func runOther(dir string) error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = isolate.DetachViews()
	}
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "") // as on the sandbox's host, for QEMU's namespaces
	}
	if err == nil {
		err = errors.Join(isolate.OwnState(), ownLibvirt(dir))
	}
	if err == nil {
		err = errors.Join(unix.Sethostname([]byte(filepath.Base(dir))), os.Mkdir("/run/other", 0o700))
	}
	if err != nil {
		return fmt.Errorf("another host: %w", err)
	}
	for _, name := range []string{"virtlogd", "libvirtd"} {
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			return err
		}
		cmd := exec.Command(name)
		cmd.Stdout, cmd.Stderr, cmd.Env = log, log, append(os.Environ(), otherEnv+"=", "LC_ALL=C")
		if err := cmd.Start(); err != nil {
			return err
		}
	}
	for { // reap, for ever
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("another host: wait: %w", err)
		}
	}
}

// Share shows a directory of this very host, with the view over it, on another one: a container that its VMs' images are
// given to.
func (h *Host) Share(t testing.TB, dir string) {
	t.Helper()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal("take hold of ", dir, ": ", err)
	}
	defer unix.Close(tree)
	namespace, err := unix.Open(filepath.Join(filepath.Dir(h.root), "ns/mnt"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(namespace)
	done, end := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // and never unlocked, for it stays in the other's namespace
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(namespace, unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}
		done <- err
		<-end
		done <- unix.Unmount(dir, unix.MNT_DETACH)
		select {} // nor ended: it may be the thread whose end is the end of a host (Pdeathsig)
	}()
	if err := <-done; err != nil {
		t.Fatal("show ", dir, " on the other host: ", err)
	}
	t.Cleanup(func() {
		close(end)
		if err := <-done; err != nil {
			t.Errorf("unmount %s on the other host: %v", dir, err)
		}
	})
}
