// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The second layer: refuses to destroy an image in use, whatever way leads to it.
 *
 * Evidence comes from two sides. The kernel's own: what a VMM has open for writing (opens, counts). Declared by the
 * daemon: images of running domains, for as long as one of their processes lives (declared, devices, processes), and
 * those that are in use without one. Nothing here needs the daemon to be alive.
 *
 * Only file_open and inode_* are used, for not every kernel has the hooks with paths (CONFIG_SECURITY_PATH); reading and
 * writing cost nothing, for file_permission is a program of its own that is attached on demand.
 */
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* include/linux/fs.h, include/uapi/linux/stat.h, mount.h, magic.h */
#define FMODE_READ 0x1
#define FMODE_WRITE 0x2
#define FMODE_NOACCOUNT (1 << 29)
#define MAY_WRITE 0x2
#define ATTR_SIZE (1 << 3)
#define O_WRONLY 01
#define O_TRUNC 01000
#define O_APPEND 02000
#define S_IFMT 0170000
#define S_IFCHR 0020000
#define S_IFDIR 0040000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define MS_REMOUNT 32
#define MS_MOVE 8192
#define MS_PROPAGATION (1 << 17 | 1 << 18 | 1 << 19 | 1 << 20)
#define PF_KTHREAD 0x00200000
#define PROC_SUPER_MAGIC 0x9fa0
#define SYSFS_MAGIC 0x62656572
#define CGROUP2_SUPER_MAGIC 0x63677270
#define FUSE_SUPER_MAGIC 0x65735546
#define EBUSY 16
#define ETXTBSY 26

/* A file of a few bytes is a note, such as a pid, and no disk; an empty one may be an image that is being made. */
#define MAX_NOTE 32

/* The thread that wants to know by which numbers the kernel knows what it opens next (see Layer.number). */
SEC(".data.asker") volatile __u32 asker = 0;

SEC(".data.settings") volatile struct settings settings = { .deny = ~0U };

__u64 refusals = 0;
__u64 lost = 0; /* events that did not fit into the ring buffer */

struct {
	__uint(type, BPF_MAP_TYPE_INODE_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct image);
} declared SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, __u32); /* the kernel's dev_t */
	__type(value, struct image);
} devices SEC(".maps");

/* Character devices that take commands for a block device: /dev/sg0, /dev/bsg/0:0:0:0, /dev/nvme0, /dev/ng0n1. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 14);
	__type(key, __u32);   /* the kernel's dev_t, as */
	__type(value, __u32); /* this one's */
} nodes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 12);
	__type(key, struct number);
	__type(value, __u32); /* CLASS_… */
} programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 17);
	__type(key, __u32); /* thread group id */
	__type(value, struct process);
} processes SEC(".maps");

/* What VMMs have open, by the address of the struct file: until that is freed, nobody else has it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, __u64);
	__type(value, struct open);
} opens SEC(".maps");

/*
 * How often, by image: the address of the inode, or the number of a block device. An entry is removed when its inode is
 * freed, when nobody can have it open, and not when it falls to zero: somebody might be about to add one.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, __u64);
	__type(value, struct count);
} counts SEC(".maps");

/* How often a VMM itself has opened an image for writing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct holding);
	__type(value, __u64);
} holdings SEC(".maps");

/* Views, by the device number of their superblock; how many files of theirs VMMs have open. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 10);
	__type(key, __u32);
	__type(value, struct view);
} views SEC(".maps");

/* Mounts that views need: their own, and those that these stand on, which may carry several. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 12);
	__type(key, __u32);   /* mnt_id */
	__type(value, __u32); /* the view's device number; 0: of one that carries views */
} mounts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct number);
} answers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

#include "evidence.h"
#include "ioctl.h"
#include "verdict.h"

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *file, int ret)
{
	if (ret)
		return ret;
	struct inode *inode = file->f_inode;
	__u32 thread = bpf_get_current_pid_tgid();
	if (asker == thread)
		answer(inode, thread);
	__u32 mode = file->f_mode;
	if (judged_above(file) && !(current_class() & CLASS_VMM))
		return 0;
	if (mode & FMODE_WRITE) {
		ret = judge(inode, file->f_flags & O_TRUNC ? OP_TRUNCATE : OP_WRITE, file->f_path.dentry);
		if (ret)
			return ret;
	}
	struct process *p = current_process();
	if (p && p->class & CLASS_VMM)
		note_open(file, inode, tgid(), 1);
	return 0;
}

SEC("lsm/file_free_security")
void BPF_PROG(file_free, struct file *file)
{
	note_close((__u64)file);
}

SEC("lsm/inode_free_security")
void BPF_PROG(inode_free, struct inode *inode)
{
	__u64 key = (__u64)inode;
	bpf_map_delete_elem(&counts, &key);
}

/* Only attached on demand: what was opened before the image was in use is judged at each write. */
SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *file, int mask, int ret)
{
	if (ret || !(mask & MAY_WRITE) || (file->f_inode->i_mode & S_IFMT) == S_IFCHR || judged_above(file))
		return ret; /* what a command in a write(2) does is not looked at */
	return judge(file->f_inode, OP_WRITE_DATA, file->f_path.dentry);
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink, struct inode *dir, struct dentry *dentry, int ret)
{
	return ret ? ret : judge(dentry->d_inode, OP_UNLINK, dentry);
}

/* RENAME_EXCHANGE comes here twice, once for each side. */
SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new, int ret)
{
	if (!ret)
		ret = judge(old->d_inode, OP_RENAME, old);
	if (!ret && new->d_inode)
		ret = judge(new->d_inode, OP_REPLACE, new);
	return ret;
}

static __always_inline int setattr(struct dentry *dentry, struct iattr *attr)
{
	return attr->ia_valid & ATTR_SIZE ? judge(dentry->d_inode, OP_TRUNCATE, dentry) : 0;
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, struct dentry *dentry, struct iattr *attr, int ret)
{
	return ret ? ret : setattr(dentry, attr);
}

/* The same since 6.9, with the mount's idmap before it. */
SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_idmap, struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr, int ret)
{
	return ret ? ret : setattr(dentry, attr);
}

static __always_inline int judge_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	__u32 op = ioctl_op(cmd, arg);
	return op ? judge(file->f_inode, op, file->f_path.dentry) : 0;
}

SEC("lsm/file_ioctl")
int BPF_PROG(file_ioctl, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	return ret ? ret : judge_ioctl(file, cmd, arg);
}

/* Of 32-bit programs, since 6.8 and in later 6.1 and 6.6: before, they come to file_ioctl. Their sg_io_hdr is another one. */
SEC("lsm/file_ioctl_compat")
int BPF_PROG(file_ioctl_compat, struct file *file, unsigned int cmd, unsigned long arg, int ret)
{
	return ret || cmd == SG_IO ? ret : judge_ioctl(file, cmd, arg);
}

/* Since 6.0. A write by io_uring comes to file_permission, and what it opens or removes to the hooks of that. */
SEC("lsm/uring_cmd")
int BPF_PROG(uring_cmd, struct io_uring_cmd *cmd, int ret)
{
	if (ret || cmd->cmd_op != BLOCK_URING_CMD_DISCARD)
		return ret;
	return judge(cmd->file->f_inode, OP_WRITE_DATA, cmd->file->f_path.dentry);
}

SEC("lsm/sb_umount")
int BPF_PROG(sb_umount, struct vfsmount *mnt, int flags, int ret)
{
	return ret ? ret : judge_mount(mnt, OP_UMOUNT);
}

/* move_mount(2). A mount that is attached for the first time is in no namespace before. */
SEC("lsm/move_mount")
int BPF_PROG(move_mount, const struct path *from, const struct path *to, int ret)
{
	if (!ret)
		ret = judge_mount(from->mnt, OP_MOVE);
	if (!ret)
		ret = judge_cover(to);
	return ret;
}

/* mount(2): of a move it says the source by its name alone, so while VMs run through a view nothing moves beside it. */
SEC("lsm/sb_mount")
int BPF_PROG(sb_mount, const char *dev_name, const struct path *path, const char *type, unsigned long flags, void *data, int ret)
{
	if (ret || flags & (MS_REMOUNT | MS_PROPAGATION))
		return ret;
	if (flags & MS_MOVE)
		ret = judge_any_move();
	return ret ? ret : judge_cover(path);
}

SEC("lsm/bprm_committed_creds")
void BPF_PROG(process_exec, struct linux_binprm *bprm)
{
	note_exec(bprm->file->f_inode);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	note_fork(parent, child);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	if (task->signal->live.counter <= 0) {
		__u32 pid = task->tgid;
		bpf_map_delete_elem(&processes, &pid);
	}
	return 0;
}

/* Counts what VMMs had open before the programs above were there. */
SEC("iter/task_file")
int already_open(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	if (!task || !file)
		return 0;
	__u32 pid = task->tgid;
	struct process *p = bpf_map_lookup_elem(&processes, &pid);
	if (p && p->class & CLASS_VMM)
		note_open(file, file->f_inode, pid, 0);
	return 0;
}
