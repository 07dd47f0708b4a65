// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/need"
	"imgward/test/uring"
)

// From linux/fs.h, blkpg.h, fsverity.h, blkdev.h, nvme_ioctl.h, scsi/sg.h, fs/ext4/ext4.h and fs/xfs/libxfs/xfs_fs.h.
const (
	blkPG, blkPGResize      = 0x1269, 3
	blockUringDiscard       = 0x1200
	enableVerity            = 0x40806685
	ext4SwapBoot            = 0x6611
	xfsSwapExtents          = 0xc0c0586d
	sgIO, sendCommand       = 0x2285, 1
	nvmeAdminCmd, nvmeIOCmd = 0xc0484e41, 0xc0484e43
)

func init() { maps.Copy(calls, ioctls) }

// ioctls are calls by io_uring, and those that hand a disk or file system a command of its own. PATH may be the number of a
// descriptor of whoever calls; the file /other/file is what is put in the place of an image.
var ioctls = map[string]func(path string) error{
	"uring-open": func(path string) error {
		return ring(func(r *uring.Ring) error { _, err := r.Open(path, unix.O_RDWR); return err })
	},
	"uring-trunc": func(path string) error {
		return ring(func(r *uring.Ring) error { _, err := r.Open(path, unix.O_RDONLY|unix.O_TRUNC); return err })
	},
	"uring-unlink": func(path string) error { return ring(func(r *uring.Ring) error { return r.Unlink(path) }) },
	"uring-rename": func(path string) error {
		return ring(func(r *uring.Ring) error {
			return errors.Join(r.Rename(path, path+".new"), r.Rename(path+".new", path))
		})
	},
	"uring-write": func(fd string) error {
		return ring(func(r *uring.Ring) error { return r.Write(number(fd), make([]byte, 4096)) })
	},
	"uring-punch": func(fd string) error {
		return ring(func(r *uring.Ring) error {
			const how = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
			_, err := r.Do(uring.SQE{Op: uring.Fallocate, FD: number(fd), Len: how, Addr: 65536})
			return err
		})
	},
	"uring-discard": func(fd string) error {
		return ring(func(r *uring.Ring) error {
			_, err := r.Do(uring.SQE{Op: uring.Command, FD: number(fd), Off: blockUringDiscard, Rest: [3]uint64{1: 65536}})
			return err
		})
	},
	"clone": func(fd string) error {
		return opened("/x/other", unix.O_RDONLY, func(other int) error { return unix.IoctlFileClone(int(number(fd)), other) })
	},
	"swap-boot": func(fd string) error { return ioctl(int(number(fd)), ext4SwapBoot, nil) },
	"swap-extents": func(fd string) error {
		return opened("/x/other", unix.O_RDWR, func(other int) error { return swapExtents(int(number(fd)), other) })
	},
	"verity": func(path string) error {
		return opened(path, unix.O_RDONLY, func(fd int) error {
			arg := [32]uint32{1, 1, 4096} // version, SHA-256, block size
			return ioctl(fd, enableVerity, unsafe.Pointer(&arg))
		})
	},
	"resizepart": func(disk string) error {
		return opened(disk, unix.O_RDONLY, func(fd int) error {
			part := struct {
				start, length int64
				number        int32
				names         [132]byte
			}{1 << 20, 1 << 20, 1, [132]byte{}}
			arg := struct {
				op, flags, size int32
				part            unsafe.Pointer
			}{blkPGResize, 0, int32(unsafe.Sizeof(part)), unsafe.Pointer(&part)}
			return ioctl(fd, blkPG, unsafe.Pointer(&arg))
		})
	},
	"scsi-inquiry": func(path string) error { return scsi(path, 36, true, 0x12, 0, 0, 0, 36, 0) },
	"scsi-write":   func(path string) error { return scsi(path, 4096, false, 0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0) },
	"scsi-send": func(path string) error {
		return opened(path, unix.O_RDONLY, func(fd int) error {
			arg := struct {
				in, out uint32
				command [10]byte
				data    [512]byte
			}{in: 512, command: [10]byte{0x2a, 8: 1}}
			return ioctl(fd, sendCommand, unsafe.Pointer(&arg))
		})
	},
	"bsg-write": bsgWrite,
	"scsi-write-same": func(path string) error {
		return scsi(path, 512, false, 0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0)
	},
	"nvme-write": func(path string) error {
		data := make([]byte, 4096)
		at := uint64(uintptr(unsafe.Pointer(&data[0])))
		err := nvme(path, nvmeIOCmd, [18]uint32{0: 1, 1: 1, 6: uint32(at), 7: uint32(at >> 32), 9: 4096, 12: 7})
		clear(data)
		return err
	},
	"nvme-format": func(path string) error { return nvme(path, nvmeAdminCmd, [18]uint32{0: 0x80, 1: 1}) },
	"nvme-identify": func(path string) error {
		data := make([]byte, 4096)
		at := uint64(uintptr(unsafe.Pointer(&data[0])))
		err := nvme(path, nvmeAdminCmd, [18]uint32{0: 6, 6: uint32(at), 7: uint32(at >> 32), 9: 4096, 10: 1})
		clear(data)
		return err
	},
}

func number(fd string) int32 {
	n, err := strconv.Atoi(fd)
	if err != nil {
		return -1
	}
	return int32(n)
}

func ring(do func(r *uring.Ring) error) error {
	r, err := uring.New()
	if err != nil {
		return err
	}
	defer r.Close()
	return do(r)
}

// swapExtents is XFS_IOC_SWAPEXT as xfs_fsr(8) does it, which says what the file was like (struct xfs_swapext).
func swapExtents(fd, other int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	arg := [24]int64{1: int64(fd), 2: int64(other), 4: st.Size, 7: int64(st.Ino), 11: st.Size,
		12: st.Atim.Sec, 13: st.Atim.Nsec, 14: st.Mtim.Sec, 15: st.Mtim.Nsec, 16: st.Ctim.Sec, 17: st.Ctim.Nsec}
	return ioctl(fd, xfsSwapExtents, unsafe.Pointer(&arg))
}

// scsi sends a disk a command of its own, by a descriptor for reading (struct sg_io_hdr).
func scsi(path string, length int, in bool, command ...byte) error {
	return opened(path, unix.O_RDONLY, func(fd int) error {
		data, sense := make([]byte, length), make([]byte, 64)
		arg := struct {
			id, direction                 int32
			commandLen, senseLen          uint8
			_                             uint16
			length                        uint32
			data, command, sense          unsafe.Pointer
			timeout, flags                uint32
			_, _                          int32
			_                             uint64
			status, masked, message, left uint8
			host, driver                  uint16
			_                             [3]int32
		}{id: 'S', direction: -2, commandLen: uint8(len(command)), senseLen: 64, length: uint32(length),
			data: unsafe.Pointer(&data[0]), command: unsafe.Pointer(&command[0]), sense: unsafe.Pointer(&sense[0]), timeout: 20000}
		if in {
			arg.direction = -3
		}
		if err := ioctl(fd, sgIO, unsafe.Pointer(&arg)); err != nil {
			return err
		}
		if arg.status != 0 || arg.host != 0 {
			return fmt.Errorf("status %#x, host %#x, sense % x", arg.status, arg.host, sense[:14])
		}
		return nil
	})
}

// bsgWrite is scsi-write by a struct sg_io_v4.
func bsgWrite(path string) error {
	return opened(path, unix.O_RDONLY, func(fd int) error {
		data, command := make([]byte, 4096), [10]byte{0x2a, 8: 8}
		arg := struct {
			guard                         int32
			protocol, subprotocol, length uint32
			command                       unsafe.Pointer
			_, _, _, _                    uint64
			outCount, outLength           uint32
			_                             uint64
			out                           unsafe.Pointer
			_                             uint64
			timeout, flags                uint32
			_                             uint64
			_, driver, transport, status  uint32
			_                             [9]uint64
		}{guard: 'Q', length: 10, command: unsafe.Pointer(&command[0]), outLength: 4096, out: unsafe.Pointer(&data[0]), timeout: 20000}
		if err := ioctl(fd, sgIO, unsafe.Pointer(&arg)); err != nil {
			return err
		}
		if arg.status != 0 || arg.transport != 0 {
			return fmt.Errorf("status %#x, host %#x", arg.status, arg.transport)
		}
		return nil
	})
}

func nvme(path string, request uint, command [18]uint32) error {
	return opened(path, unix.O_RDONLY, func(fd int) error { return ioctl(fd, request, unsafe.Pointer(&command)) })
}

const ioctlScript = `
alias imgward=/bin/imgward
mkdir -p /etc/imgward /run/libvirt/qemu /x
echo 'vmm = ["/bin/qemu-storage-daemon"]' >/etc/imgward/policy.toml
await() { i=0; until (eval "$1") 2>/dev/null; do i=$((i+1)); [ $i -lt 600 ] || { echo "in vain: $1"; imgward status; exit 1; }; sleep 0.1; done; }
mkfs.xfs -q /dev/vdc && mount -t xfs /dev/vdc /x && cp /bin/busybox /x/other && /bin/truncate -s 2M /x/other || exit 1
echo 2048,16384 | /bin/sfdisk -q /dev/nvme0n1; await '[ -b /dev/nvme0n1p1 ]'
sum() { case $T in /dev/sd*|/dev/nvme*) /bin/blockdev --flushbufs $T ;; esac; [ -e $T ] && dd if=$T bs=64k count=32 2>/dev/null | md5sum; }
imgward guard --log /tmp/guard.log || exit 1
refused() { ! (: >>$1) 2>/dev/null; }
running() { vm $1 $T 7>&-; await "refused $T"; }
each() { for name in $2; do attempt $name "layer call $name $1"; done; }

T=/data/vm.img; pristine; exec 7<>$T; running file
PHASE='io_uring running'; each $T 'uring-open uring-trunc uring-unlink uring-rename'
PHASE='ext4 running'; each 7 swap-boot
attempt 'chattr by a 32-bit program' '/bin/chattr32'
layer strict
PHASE='ext4 strict running'; each 7 'uring-write uring-punch'
layer lax; stop; exec 7>&-
PHASE='ext4 stopped'; attempt 'chattr by a 32-bit program' '/bin/chattr32 && chattr -i $T'
PHASE='io_uring stopped'; each $T 'uring-open uring-rename uring-unlink'

T=/x/vm.img; pristine; exec 7<>$T; running file
PHASE='xfs running'; each 7 swap-extents
layer strict
PHASE='xfs strict running'; each 7 clone
layer lax; stop
PHASE='xfs stopped'; each 7 'swap-extents clone'
exec 7>&-

T=/dev/mapper/vm; pristine; exec 7<>$T; running host_device
PHASE='device running'; each 7 uring-discard
stop; exec 7>&-

T=/dev/sda; pristine; running host_device
bsg=/dev/bsg/$(ls /sys/block/sda/device/bsg)
PHASE='scsi running'; each $T 'scsi-write scsi-write-same scsi-send'; each /dev/sg0 'scsi-write scsi-write-same'; each $bsg bsg-write
PHASE='scsi stopped'; each $T scsi-inquiry; each /dev/sg0 scsi-inquiry
stop; each $T 'scsi-write scsi-write-same scsi-send'; each /dev/sg0 scsi-write-same; each $bsg bsg-write

T=/dev/nvme0n1p1; pristine; running host_device; await 'refused /dev/nvme0n1'
PHASE='nvme running'; each /dev/nvme0n1 'nvme-write nvme-format resizepart'; each /dev/nvme0 'nvme-write nvme-format'; each /dev/ng0n1 nvme-write
PHASE='nvme inquiry stopped'; each /dev/nvme0 nvme-identify
stop; await ': >>/dev/nvme0n1'
PHASE='nvme stopped'; each /dev/nvme0n1 resizepart; each /dev/ng0n1 nvme-write; each /dev/nvme0 nvme-format; each /dev/nvme0n1 'nvme-write nvme-format'

T=/data/kept.img; pristine; sync; sleep 1000 & vm=$!
echo "<domstatus state='running' pid='$vm'><domain><name>kept</name><devices><disk type='file'><source file='$T'/><target dev='vda'/></disk></devices></domain></domstatus>" >/run/libvirt/qemu/kept.xml
await "refused $T"
PHASE='not open running'; each $T verity
rm /run/libvirt/qemu/kept.xml; kill $vm; await ": >>$T"
PHASE='not open stopped'; each $T verity
imgward guard stop
grep -E 'level=(WARN|ERROR)' /tmp/guard.log
`

// TestIoctls: io_uring, and what destroys without a write: blocks that are exchanged, a smaller partition, and commands that a disk
// understands, which root may send it by a descriptor for reading.
func TestIoctls(t *testing.T) {
	need.Long(t)
	need.Have(t, need.Tools("mkfs.xfs", "sfdisk", "blockdev", "gcc"))
	g := guest(t).With("mkfs.xfs", "sfdisk", "blockdev").Modules("xfs", "scsi_debug", "sd_mod", "sg", "nvme")
	disk, namespace := t.TempDir()+"/c", t.TempDir()+"/n"
	harness.Run(t, "truncate", "-s", "320M", disk).OK(t)
	harness.Run(t, "truncate", "-s", "32M", namespace).OK(t)
	chattr := t.TempDir() + "/chattr32"
	harness.Run(t, "gcc", "-m32", "-O1", "-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector", "-o", chattr, "testdata/chattr32.c").OK(t)
	g.File("/bin/chattr32", chattr).Disk(disk).Args("-drive", "if=none,format=raw,cache=unsafe,id=n,file="+namespace, "-device", "nvme,drive=n,serial=n")
	r := g.Run(prelude + ioctlScript)
	t.Log(r.Stdout, r.Stderr)
	if n := judge(t, r.Stdout); n < 38 || r.Exit != 0 {
		t.Errorf("%d cases, exit %d", n, r.Exit)
	}
}
