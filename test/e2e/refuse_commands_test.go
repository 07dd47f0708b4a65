// SPDX-License-Identifier: Apache-2.0

package e2e

import "strings"

// command is a way to destroy an image. The script runs under sh -e with
//
//	IMG   the image, by the name under test
//	DIR   the directory that holds it, inside the view
//	SRC   a file of 1 MiB with other contents, in the same directory
//	OUT   a directory outside of the view
//	POOL  the storage pool over DIR, and VOL the image's volume there
//	DOM2  another running domain
type command struct {
	name   string
	script string
	ops    string // the refusal is for one of these
	// byName: given a symbolic link, the command replaces or removes that, and leaves the image alone.
	byName bool
	format string // the only image format that it makes sense on
	virsh  bool   // libvirtd does it, by volume or on behalf of a domain: own names only
	// relinks: the same, but only after the image was refused.
	relinks bool
	// says is what the command makes of EBUSY, if it does not print that.
	says string
	// locked: natively, QEMU's own image locks refuse it.
	locked bool
	// behind: a thread of libvirtd's writes behind virsh's back. virsh tells that it failed only if it had failed by the end
	// of the stream (seen on a full tmpfs without any view: 26 of 150 failed uploads were called a success).
	behind bool
}

// takesName says whether all that the command does to the image is to take a name away.
func (c *command) takesName() bool {
	for _, op := range strings.Fields(c.ops) {
		if op != "unlink" && op != "rename" && op != "replace" {
			return false
		}
	}
	return true
}

// refused are the commands of the contract's destroyers, as people type them.
var refused = []command{
	{name: "dd", ops: "truncate", script: `dd if=/dev/zero of="$IMG" bs=1k count=400`},
	{name: "dd conv=notrunc", ops: "write", script: `dd if=/dev/zero of="$IMG" bs=64k count=4 conv=notrunc`},
	{name: "dd seek=", ops: "write truncate", script: `dd if=/dev/zero of="$IMG" bs=64k count=1 seek=2`},
	{name: "dd oflag=direct", ops: "write", script: `dd if="$SRC" of="$IMG" bs=1M oflag=direct conv=notrunc`},
	{name: "> img", ops: "truncate", script: `: >"$IMG"`},
	{name: ">> img", ops: "write", script: `echo more >>"$IMG"`},
	{name: "tee", ops: "truncate", script: `echo x | tee "$IMG"`},
	{name: "truncate -s", ops: "write truncate", script: `truncate -s 1M "$IMG"`},
	{name: "truncate -s +", ops: "write truncate", script: `truncate -s +1M "$IMG"`},
	{name: "cp", ops: "truncate", script: `cp "$SRC" "$IMG"`},
	{name: "cp -f", ops: "truncate unlink", relinks: true, script: `cp -f "$SRC" "$IMG"`},
	{name: "cp --remove-destination", ops: "unlink", byName: true, script: `cp --remove-destination "$SRC" "$IMG"`},
	{name: "mv onto", ops: "replace unlink", byName: true, script: `cp "$SRC" "$DIR/new"; mv "$DIR/new" "$IMG"`},
	{name: "mv elsewhere", ops: "rename unlink", byName: true, script: `mv "$IMG" "$OUT/away"`},
	{name: "mv beside", ops: "rename", byName: true, script: `mv "$IMG" "$IMG.old"`},
	{name: "rm -f", ops: "unlink", byName: true, script: `rm -f "$IMG"`},
	{name: "find -delete", ops: "unlink", byName: true, script: `find "$IMG" -delete`},
	{name: "shred", ops: "write", script: `shred -n 1 "$IMG"`},
	{name: "fallocate -p", ops: "write fallocate truncate", script: `fallocate -p -o 0 -l 64k "$IMG"`},
	{name: "fallocate -z", ops: "write fallocate truncate", script: `fallocate -z -o 0 -l 64k "$IMG"`},
	{name: "fallocate -c", ops: "write fallocate truncate", script: `fallocate -c -o 0 -l 64k "$IMG"`},
	{name: "fallocate -l", ops: "write fallocate truncate", script: `fallocate -l 32M "$IMG"`},
	{name: "sed -i", ops: "replace", byName: true, script: `sed -i 's/a/b/' "$IMG"`},
	{name: "rsync", ops: "replace", byName: true, script: `rsync -I "$SRC" "$IMG"`},
	{name: "rsync --inplace", ops: "write", byName: true, script: `rsync -I --inplace "$SRC" "$IMG"`},
	{name: "install", ops: "unlink", byName: true, script: `install -m 600 "$SRC" "$IMG"`},
	{name: "ln -f", ops: "replace unlink", byName: true, script: `ln -f "$SRC" "$IMG"`},
	{name: "ln -sf", ops: "replace unlink", byName: true, script: `ln -sf "$SRC" "$IMG"`},
	{name: "tar -x", ops: "unlink", byName: true, says: "File exists", // it tries again, with O_EXCL
		script: `cp "$SRC" "$OUT/${IMG##*/}"; tar -C "$OUT" -c "${IMG##*/}" | tar -C "${IMG%/*}" -x`},
	{name: "losetup", ops: "write", says: "Text file busy", script: `for try in 1 2 3 4 5; do # another suite may take the device
			loop=$(losetup -f); said=$(losetup "$loop" "$IMG" 2>&1) && break
			case $try$said in 5*|*'Text file busy'*) echo "$said" >&2; exit 1; esac
		done
		trap 'losetup -d "$loop"' EXIT; dd if=/dev/zero of="$loop" bs=64k count=1 conv=fsync`},
	{name: "losetup -f", ops: "write", says: "Text file busy",
		script: `loop=$(losetup -f --show "$IMG"); trap 'losetup -d "$loop"' EXIT; dd if=/dev/zero of="$loop" bs=64k count=1 conv=fsync`},
	{name: "mkfs.ext4", ops: "write", script: `mkfs.ext4 -q -F "$IMG"`},
	{name: "mkswap", ops: "write", script: `mkswap "$IMG"`},
	{name: "ddrescue", ops: "write truncate", script: `ddrescue -f "$SRC" "$IMG"`},

	{name: "qemu-img create", ops: "write truncate", locked: true, script: `qemu-img create -q -f raw "$IMG" 1M`},
	{name: "qemu-img convert", ops: "write truncate", locked: true, script: `qemu-img convert -f raw -O raw "$SRC" "$IMG"`},
	{name: "qemu-img convert -n", ops: "write truncate", locked: true, script: `qemu-img convert -n -f raw -O raw "$SRC" "$IMG"`},
	{name: "qemu-img resize", ops: "write truncate", locked: true,
		script: `qemu-img resize -q -f $(qemu-img info -U "$IMG" | sed -n '/file format/{s/.*: //p;q}') "$IMG" +1M`},
	{name: "qemu-img commit", ops: "write", locked: true, script: `
		qemu-img create -q -f qcow2 -b "$IMG" -F raw -u "$OUT/over" 8M; qemu-io -c 'write 0 64k' "$OUT/over"
		qemu-img commit -q "$OUT/over"`},
	{name: "qemu-img rebase", ops: "write", locked: true, format: "qcow2", script: `qemu-img rebase -u -b "" "$IMG"`},
	{name: "qemu-img snapshot", ops: "write", locked: true, format: "qcow2", script: `qemu-img snapshot -c evil "$IMG"`},
	{name: "qemu-img amend", ops: "write", locked: true, format: "qcow2", script: `qemu-img amend -o lazy_refcounts=on "$IMG"`},
	{name: "qemu-io", ops: "write", locked: true, script: `qemu-io -f raw -c 'write 0 64k' "$IMG"`},
	{name: "nbdcopy", ops: "write truncate", says: "File exists", script: `nbdcopy "$SRC" "$IMG"`},

	{name: "python O_RDONLY|O_TRUNC", ops: "truncate",
		script: `python3 -c 'import os,sys; os.open(sys.argv[1], os.O_RDONLY|os.O_TRUNC)' "$IMG"`},
	{name: "openat2", ops: "truncate", script: `python3 -c '
import ctypes, os, struct, sys
libc, how = ctypes.CDLL(None, use_errno=True), struct.pack("QQQ", os.O_WRONLY | os.O_TRUNC, 0, 0)
if libc.syscall(437, -100, sys.argv[1].encode(), how, len(how)) < 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))' "$IMG"`},
	{name: "/proc/self/fd reopened", ops: "truncate write", script: `exec 3<"$IMG"; : >/proc/self/fd/3`},
	{name: "O_PATH reopened", ops: "write", script: `python3 -c '
import os, sys
os.write(os.open("/proc/self/fd/%d" % os.open(sys.argv[1], os.O_PATH), os.O_RDWR), b"x")' "$IMG"`},
	{name: "copy_file_range", ops: "write copy-into", script: `python3 -c '
import os, sys
os.copy_file_range(os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY), 65536)' "$SRC" "$IMG"`},
	{name: "shared mapping", ops: "write", script: `python3 -c '
import mmap, sys
image = open(sys.argv[1], "r+b")
mmap.mmap(image.fileno(), 4096)[0:1] = b"\0"' "$IMG"`},
	{name: "RENAME_EXCHANGE", ops: "rename replace", byName: true, script: `python3 -c '
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2) < 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))' "$SRC" "$IMG"`},
	{name: "open_by_handle_at", ops: "write truncate", script: `python3 -c '
import ctypes, os, struct, sys
libc, handle, mount = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(136), ctypes.c_int()
struct.pack_into("I", handle, 0, 128)
def check(n):
    if n < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return n
check(libc.name_to_handle_at(-100, sys.argv[1].encode(), handle, ctypes.byref(mount), 0x400))
root = os.open(os.path.dirname(os.path.realpath(sys.argv[1])), os.O_RDONLY)
os.write(check(libc.open_by_handle_at(root, handle, os.O_WRONLY)), b"\0")' "$IMG"`},

	{name: "virsh vol-wipe", ops: "truncate write write-data", virsh: true, script: `virsh -q vol-wipe --pool "$POOL" "$VOL"`},
	{name: "virsh vol-delete", ops: "unlink", virsh: true, script: `virsh -q vol-delete --pool "$POOL" "$VOL"`},
	{name: "virsh vol-upload", ops: "truncate write write-data", virsh: true, behind: true,
		script: `virsh -q vol-upload --pool "$POOL" "$VOL" "$SRC"`},
	{name: "virsh vol-resize", ops: "truncate write fallocate", virsh: true, format: "raw",
		script: `virsh -q vol-resize --pool "$POOL" "$VOL" 16M`},
	{name: "virsh save OTHERVM", ops: "truncate write write-data unlink", virsh: true, script: `virsh -q save "$DOM2" "$IMG"`},
}

// refusedAbove act on the directory above the images.
var refusedAbove = []command{
	{name: "mv directory", ops: "rename-dir", script: `mv "$DIR" "$DIR.old"`},
	{name: "mv directory elsewhere", ops: "unlink rename-dir", script: `mv "$DIR" "$OUT/away"`},
	{name: "rm -rf directory", ops: "unlink", script: `rm -rf "$DIR"`},
	{name: "RENAME_EXCHANGE directory", ops: "rename-dir", script: `mkdir "$DIR.new"; python3 -c '
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2) < 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))' "$DIR.new" "$DIR"`},
}
