// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
)

// TestStartRace starts and stops a domain over and over, beside loops of destroyers. While it runs, none of them may win;
// and their refusals and the handles they had a moment ago must not keep it from starting. (Before it starts the disk is
// anybody's: what they do then is no harm.)
func TestStartRace(t *testing.T) {
	if harness.Native() {
		return
	}
	h := harness.New(t)
	h.Mount(t)
	disk := h.Raw(t, "vm.img", 8*MiB)
	d := h.Define(t, harness.Spec{Name: "vm", Disks: []harness.Disk{{Target: "vda", File: disk}}})
	stop := make(chan struct{})
	var loops sync.WaitGroup
	var wins [len(destroyers)]int
	for i, destroy := range destroyers {
		loops.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if destroy(disk) == nil {
					wins[i]++
				}
			}
		})
	}
	for range 8 {
		d.Start(t)
		before := h.Identify(t, disk)
		for range 20 {
			unchanged(t, before, h.Identify(t, disk))
		}
		if d.State(t) != "running" {
			t.Error("the domain does not run any more")
		}
		unchanged(t, before, h.Identify(t, disk))
		d.Virsh(t, "destroy").OK(t)
	}
	close(stop)
	loops.Wait()
	for i, n := range wins {
		if n == 0 {
			t.Errorf("destroyer %d never had its way while the domain was off: it proves nothing", i)
		}
	}
}

// destroyers harm an image without taking its name away: libvirt, which labels it by name, must find it at all times.
var destroyers = [...]func(image string) error{
	func(image string) error { // dd
		f, err := os.OpenFile(image, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write(make([]byte, 4096))
		return err
	},
	func(image string) error { return os.Truncate(image, 8*MiB) },
	func(image string) error { // dd conv=notrunc
		f, err := os.OpenFile(image, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("harm"), 4096)
		return err
	},
	func(image string) error { // fallocate -p
		f, err := os.OpenFile(image, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<16)
	},
}
