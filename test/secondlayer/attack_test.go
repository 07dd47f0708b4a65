// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// From linux/fs.h and loop.h, as far as golang.org/x/sys has them not.
const (
	blkDiscard, blkZeroOut = 0x1277, 0x127f
	loopSetBlockSize       = 0x4c09
)

// calls are system calls that destroy a file or block device, for which there is no command, or one that asks before.
var calls = map[string]func(path string) error{
	"open-rdonly-trunc": func(path string) error { return opened(path, unix.O_RDONLY|unix.O_TRUNC, nil) },
	"punch": func(path string) error {
		return opened(path, unix.O_RDWR, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 65536)
		})
	},
	"collapse": func(path string) error {
		return opened(path, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 65536) })
	},
	"copy_file_range": func(path string) error {
		return filled(path, func(fd, from int) error { _, err := unix.CopyFileRange(from, nil, fd, nil, 65536, 0); return err })
	},
	"sendfile": func(path string) error {
		return filled(path, func(fd, from int) error { _, err := unix.Sendfile(fd, from, nil, 65536); return err })
	},
	"splice": func(path string) error {
		return opened(path, unix.O_RDWR, func(fd int) error {
			var p [2]int
			if err := unix.Pipe(p[:]); err != nil {
				return err
			}
			if _, err := unix.Write(p[1], make([]byte, 4096)); err != nil {
				return err
			}
			_, err := unix.Splice(p[0], nil, fd, nil, 4096, 0)
			return err
		})
	},
	"mmap": func(path string) error {
		return opened(path, unix.O_RDWR, func(fd int) error {
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err == nil {
				clear(m)
				err = unix.Msync(m, unix.MS_SYNC)
			}
			return err
		})
	},
	"handle": func(path string) error {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
		if err != nil {
			return err
		}
		mount, err := unix.Open("/data", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		fd, err := unix.OpenByHandleAt(mount, h, unix.O_RDWR)
		if err == nil {
			_, err = unix.Pwrite(fd, make([]byte, 4096), 0)
		}
		return err
	},
	"o_path": func(path string) error {
		return opened(path, unix.O_PATH, func(fd int) error {
			return opened(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR, func(fd int) error { return zero(fd) })
		})
	},
	"whiteout": func(path string) error {
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".new", unix.RENAME_WHITEOUT)
	},
	"blkzeroout": func(path string) error { return blkRange(path, unix.O_RDWR, blkZeroOut) },
	// Of the descriptor 7 of whoever calls.
	"discard-fd7": func(string) error { return ioctlRange(7, blkDiscard) },
	"zeroout-fd7": func(string) error { return ioctlRange(7, blkZeroOut) },
	"loop-block-size": func(path string) error {
		return opened(path, unix.O_RDONLY, func(fd int) error { return unix.IoctlSetInt(fd, loopSetBlockSize, 4096) })
	},
}

func opened(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if do == nil {
		return nil
	}
	return do(fd)
}

func filled(path string, do func(fd, from int) error) error {
	return opened(path, unix.O_RDWR, func(fd int) error {
		from := path[:strings.LastIndex(path, "/")] + "/filler"
		if err := os.WriteFile(from, make([]byte, 1<<20), 0o600); err != nil {
			return err
		}
		return opened(from, unix.O_RDONLY, func(from int) error { return do(fd, from) })
	})
}

func zero(fd int) error {
	_, err := unix.Pwrite(fd, make([]byte, 4096), 0)
	return err
}

func blkRange(path string, flags int, request uint) error {
	return opened(path, flags, func(fd int) error { return ioctlRange(fd, request) })
}

func ioctlRange(fd int, request uint) error {
	part := [2]uint64{0, 65536}
	return ioctl(fd, request, unsafe.Pointer(&part))
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// attacks are commands as in commands, by system calls and by way of other names.
func attacks(kind string) (list []command) {
	for _, name := range []string{
		"open-rdonly-trunc", "punch", "collapse", "copy_file_range", "sendfile", "splice", "mmap", "handle", "o_path",
	} {
		list = append(list, command{name, "layer call " + name + " $T", "file"})
	}
	list = append(list,
		command{"whiteout", "layer call whiteout $T; r=$?; [ ! -c $T ] || rm $T; exit $r", "file"},
		command{"/proc/PID/root", "dd if=/dev/zero of=/proc/$$/root$T bs=4k count=1 conv=notrunc", ""},
		command{"chroot", "mkdir -p /jail && mount --bind / /jail && mount --bind /dev /jail/dev && mount --bind /data /jail/data && " +
			"chroot /jail dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc; r=$?; umount /jail/data /jail/dev /jail; exit $r", ""},
		command{"user namespace", "unshare -U -m -r dd if=/dev/zero of=$T bs=4k count=1 conv=notrunc", ""},
		command{"bind mount", "mkdir -p /elsewhere && mount --bind $(dirname $T) /elsewhere && dd if=/dev/zero of=/elsewhere/$(basename $T) bs=4k count=1 conv=notrunc; r=$?; umount /elsewhere; exit $r", ""},
		command{"symbolic link", "ln -s $T /tmp/link; dd if=/dev/zero of=/tmp/link bs=4k count=1 conv=notrunc; r=$?; rm /tmp/link; exit $r", ""},
		command{"mkswap", "/bin/mkswap $T", ""},
		command{"losetup -o", "/bin/losetup -o 4096 -f $T && /bin/losetup -d /dev/loop0", ""},
		command{"mount -o ro,loop and setrw", "/bin/losetup -r /dev/loop0 $T && { /bin/blockdev --setrw /dev/loop0; dd if=/dev/zero of=/dev/loop0 bs=4k count=1 conv=notrunc; }; /bin/losetup -d /dev/loop0; layer call o_path $T", ""},
		command{"blkzeroout", "layer call blkzeroout $T", "device"},
		command{"sfdisk", "echo 2048, | /bin/sfdisk -q --force $T", ""},
	)
	return slices.DeleteFunc(list, func(c command) bool { return c.only != "" && c.only != kind })
}

// TestAttacks: what a root with more imagination tries, on a file and on a mapped device, with a guard; then once more with all of
// its processes killed, and for what each does, when the VM has stopped.
func TestAttacks(t *testing.T) {
	need.Long(t)
	need.Have(t, need.Tools("sfdisk", "blockdev", "mkswap"))
	var b strings.Builder
	for _, on := range [][3]string{{"file", "/data/vm.img", "file"}, {"device", "/dev/mapper/vm", "host_device"}} {
		name, target, driver := on[0], on[1], on[2]
		fmt.Fprintf(&b, "T=%s; pristine; /bin/mkswap $T; exec 7<>$T\n", target)
		fmt.Fprintf(&b, "imgward guard --log /tmp/guard.log || exit 1\nvm %s $T 7>&-\n", driver)
		fmt.Fprintf(&b, "known() { ! (: >>$T) 2>/dev/null; }\nawait known\n")
		phase := func(when string) {
			fmt.Fprintf(&b, "PHASE='%s %s'\n", name, when)
			for _, c := range attacks(name) {
				if strings.HasSuffix(when, "stopped") {
					b.WriteString("pristine\n")
				}
				fmt.Fprintf(&b, "attempt '%s' '%s'\n", c.name, c.script)
			}
		}
		phase("running")
		if name == "device" {
			b.WriteString(`
attempt 'discard by a descriptor from before' 'layer call discard-fd7 $T'
attempt 'zeroout by a descriptor from before' 'layer call zeroout-fd7 $T'
attempt 'a table over it' 'dmsetup mknodes; dmsetup create over --table "0 4096 linear $T 0"; r=$?; dmsetup remove over; exit $r'
attempt swapon '/bin/swapon $T'
attempt mount 'mount -t ext4 $T /mnt'
`)
		}
		b.WriteString("for p in $(pidof imgward); do kill -9 $p; done; sleep 1\n")
		phase("killed running")
		b.WriteString("stop\nexec 7>&-\n")
		phase("stopped")
	}
	b.WriteString("T=/dev/loop7; vm host_device $T; PHASE='loop device running'; attempt 'block size' 'layer call loop-block-size $T'\n" +
		"stop; PHASE='loop device stopped'; attempt 'block size' 'layer call loop-block-size $T'\n")
	r := guest(t).With("sfdisk", "blockdev", "mkswap", "swapon").Run(prelude + "alias imgward=/bin/imgward\nmkdir -p /etc/imgward\n" +
		"echo 'vmm = [\"/bin/qemu-storage-daemon\"]' >/etc/imgward/policy.toml\n" +
		"await() { i=0; until \"$@\"; do i=$((i+1)); [ $i -lt 600 ] || { echo \"in vain: $*\"; exit 1; }; sleep 0.1; done; }\n" + b.String())
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 80 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}
