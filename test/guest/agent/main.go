// SPDX-License-Identifier: Apache-2.0

// Command agent is the whole user space of a test guest: it runs as /init from an initramfs, loads the modules it finds
// beside it, and serves the host's requests (package wire) until it is told to power off, by the host or by the power
// button.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/guest/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "agent: runs as /init of a test guest only")
		os.Exit(2)
	}
	fmt.Println("agent:", run())
	powerOff() // init must not return: the kernel would panic
}

// run returns only when something has failed.
func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	go watchPowerButton()
	port, err := openPort(wire.Port)
	if err != nil {
		return err
	}
	fmt.Println("agent: ready")
	return newServer().serve(port)
}

func mountAll() error {
	for _, m := range []struct{ fstype, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		// The kernel may have mounted /dev itself (CONFIG_DEVTMPFS_MOUNT).
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// loadModules loads the modules of a directory in the order of their names, which the host chose to satisfy their
// dependencies.
func loadModules(dir string) error {
	files, err := filepath.Glob(dir + "/*.ko")
	if err != nil {
		return err
	}
	sort.Strings(files)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return nil
}

// openPort waits for a virtio-serial port by its name: the device appears a moment after its driver was loaded.
func openPort(name string) (*os.File, error) {
	for range 500 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, file := range names {
			if b, err := os.ReadFile(file); err == nil && string(b) == name+"\n" {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(file)), os.O_RDWR, 0)
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("no virtio-serial port %s", name)
}

func powerOff() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("agent: power off:", err)
	}
	select {}
}
