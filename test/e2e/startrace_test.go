package e2e

import (
	"os"
	"strings"
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
	must(t, os.WriteFile(h.Image("new"), []byte("new"), 0o600))
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
		r := d.Virsh(t, "start")
		for ; strings.Contains(r.Stderr, "No such file"); r = d.Virsh(t, "start") { // looked for while it was renamed
		}
		r.OK(t)
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

// destroyers harm an image without taking its name away for good: the domain must find it when it starts.
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
	func(image string) error { // two names change places, and back
		err := unix.Renameat2(unix.AT_FDCWD, image, unix.AT_FDCWD, image+".new", unix.RENAME_NOREPLACE)
		if err == nil {
			err = os.Rename(image+".new", image)
		}
		return err
	},
}
