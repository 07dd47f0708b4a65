// SPDX-License-Identifier: Apache-2.0

package e2e

// devious are ways to harm an image that nobody types by accident, but that programs take. They are tried on a raw disk
// in use, by its own name.
var devious = []command{
	{name: "O_WRONLY|O_DIRECT", ops: "write", script: python(`os.open(IMG, os.O_WRONLY | os.O_DIRECT)`)},
	{name: "O_CREAT of what exists", ops: "write", script: python(`os.open(IMG, os.O_RDWR | os.O_CREAT, 0o600)`)},
	{name: "creat", ops: "truncate", script: python(`check(libc.creat(IMG.encode(), 0o600))`)},
	{name: "O_APPEND", ops: "write", script: python(`os.open(IMG, os.O_WRONLY | os.O_APPEND)`)},
	{name: "truncate to the same size", ops: "truncate", script: python(`os.truncate(IMG, os.stat(IMG).st_size)`)},
	{name: "rename over by a directory's descriptor", ops: "replace", script: python(`
d = os.open(DIR, os.O_PATH)
os.close(os.open("new", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=d))
os.rename("new", os.path.basename(IMG), src_dir_fd=d, dst_dir_fd=d)`)},
	{name: "RENAME_WHITEOUT", ops: "rename", script: python(`
check(libc.renameat2(-100, IMG.encode(), -100, (IMG + ".old").encode(), 4))`)},
	{name: "unlink by a directory's descriptor", ops: "unlink", script: python(`
os.unlink(os.path.basename(IMG), dir_fd=os.open(DIR, os.O_PATH))`)},
	{name: "mv -b", ops: "rename", script: `cp "$SRC" "$DIR/new"; mv -b "$DIR/new" "$IMG"`},
	{name: "fallocate KEEP_SIZE past the end", ops: "write", script: `fallocate -n -o 64M -l 1M "$IMG"`},
	{name: "sendfile", ops: "write", script: python(`os.sendfile(os.open(IMG, os.O_WRONLY), os.open(SRC, os.O_RDONLY), 0, 4096)`)},
	{name: "splice", ops: "write", script: python(`
r, w = os.pipe()
os.write(w, b"x" * 4096)
os.splice(r, os.open(IMG, os.O_WRONLY), 4096)`)},
	{name: "copy_file_range to itself", ops: "write", script: python(`
f = os.open(IMG, os.O_RDWR)
os.copy_file_range(f, f, 4096, 0, 1 << 20)`)},
	{name: "/proc/PID/fd of the VM", ops: "truncate", script: python(`
for fd in glob.glob("/proc/%s/fd/*" % VM):
    if os.stat(fd).st_ino == os.stat(IMG).st_ino:
        os.truncate(fd, 0)`)},
	{name: "/proc/PID/root", ops: "truncate", script: python(`open("/proc/%s/root%s" % (VM, IMG), "w")`)},
	{name: "mount -o loop", ops: "write", script: `mkdir "$OUT/mnt"; mount -o loop "$IMG" "$OUT/mnt"`,
		says: "failed to setup loop device"},
	{name: "swapon", script: `swapon "$IMG"`, says: "swapon"},
	{name: "chattr +i", ops: "set-flags", script: `chattr +i "$IMG"`},
	{name: "chattr +a", ops: "set-flags", script: `chattr +a "$IMG"`},
	{name: "FS_IOC_FSSETXATTR", ops: "set-flags", script: python(`
attr = bytearray(28)
fcntl.ioctl(F, 0x801c581f, attr)
attr[0] |= 8
fcntl.ioctl(F, 0x401c5820, attr)`)},
	{name: "FS_IOC_ENABLE_VERITY", says: "ioctl", script: python(`
fcntl.ioctl(F, 0x40806685, struct.pack("IIII", 1, 1, 4096, 0) + bytes(112))`)},
	{name: "EXT4_IOC_SWAP_BOOT", says: "ioctl", script: python(`fcntl.ioctl(F, 0x6611)`)},
	{name: "EXT4_IOC_MOVE_EXT", says: "ioctl", script: python(`
fcntl.ioctl(F, 0xc028660f, struct.pack("IIQQQQ", 0, os.open(SRC, os.O_RDWR), 0, 0, 16, 0))`)},
	{name: "FS_IOC_SHUTDOWN", says: "ioctl", script: python(`fcntl.ioctl(F, 0x8004587d, struct.pack("I", 2))`)},
	{name: "FITRIM", says: "ioctl", script: python(`fcntl.ioctl(F, 0xc0185879, struct.pack("QQQ", 0, 1 << 40, 0))`)},
	{name: "FICLONE", ops: "write", script: python(`
fcntl.ioctl(os.open(IMG, os.O_WRONLY), 0x40049409, os.open(SRC, os.O_RDONLY))`)},
	{name: "writable mapping of a reader", says: "Permission denied", script: python(`mmap.mmap(F, 4096)[0:1] = b"\0"`)},
	{name: "a descriptor of another namespace", ops: "truncate", script: `unshare -m -p -f sh -c ': >/proc/self/fd/9' 9<"$IMG"`},
	{name: "a user namespace's root", says: "Permission denied", script: `unshare -U -r dd if=/dev/zero of="$IMG" count=1 conv=notrunc`},
	{name: "qemu-nbd", says: "lock", script: `qemu-nbd -f raw -k "$OUT/nbd" "$IMG"`},
}

// python is a script with what it needs at hand: F is the image, open for reading.
func python(text string) string {
	return `python3 -c '
import ctypes, fcntl, glob, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(n):
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n
IMG, DIR, SRC, OUT, VM = (os.environ[n] for n in ("IMG", "DIR", "SRC", "OUT", "VM"))
F = os.open(IMG, os.O_RDONLY)
` + text + `'`
}

// deviousReaders are the other side: what only looks passes.
var deviousReaders = []command{
	{name: "losetup -r", script: `loop=$(losetup -r --show -f "$IMG"); dd if="$loop" of=/dev/null count=1; losetup -d "$loop"`},
	{name: "mmap MAP_SHARED for reading", script: python(`mmap.mmap(F, 4096, prot=mmap.PROT_READ)[0]`)},
	{name: "O_DIRECT for reading", script: `dd if="$IMG" of=/dev/null iflag=direct bs=1M count=1`},
	{name: "lsattr", script: `lsattr "$IMG"`},
	{name: "chattr -i", script: `chattr -i "$IMG"`},
	{name: "link", script: `ln "$IMG" "$DIR/new"`},
	{name: "flock", script: `flock -n "$IMG" true`},
}
