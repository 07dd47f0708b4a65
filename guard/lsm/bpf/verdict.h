/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* May this go ahead? The contract's table is in docs/semantics.md; guard/contract.go is the view's version of it. */

struct question {
	struct inode *inode;
	struct dentry *dentry;
	struct image *image;
	__u64 key;
	__u32 op;
	__u32 class;
	__u32 view; /* of operations on a mount, which have no inode */
};

/* running says whether a process that the daemon named still lives: its end takes it out of the table. */
static __always_inline int running(__u32 pid)
{
	struct process *p = pid ? bpf_map_lookup_elem(&processes, &pid) : 0;
	return p && p->class & CLASS_HOLDER;
}

#define DECLARED_USED 1
#define DECLARED_DEFINED 2

static __always_inline int is_declared(struct image *image)
{
	if (!image || image->generation < settings.generation)
		return 0;
	if (image->flags & (IMAGE_USED | IMAGE_MANY | IMAGE_ALWAYS))
		return DECLARED_USED;
#pragma unroll
	for (int i = 0; i < HOLDERS; i++)
		if (running(image->holders[i]))
			return DECLARED_USED;
	return image->flags & IMAGE_DEFINED ? DECLARED_DEFINED : 0;
}

/* How often this process, if it is a VMM, has opened the image for writing. */
static __always_inline __u64 own_opens(struct question *q)
{
	struct holding h = { q->key, tgid() };
	__u64 *n = q->class & CLASS_VMM ? bpf_map_lookup_elem(&holdings, &h) : 0;
	return n ? *n : 0;
}

/* holds: the process of a domain whose image it is, or one that has it open for writing. */
static __always_inline int holds(struct question *q)
{
	__u32 pid = tgid();
	if (q->class & CLASS_HOLDER && q->image) {
		if (q->image->flags & IMAGE_MANY)
			return 1;
#pragma unroll
		for (int i = 0; i < HOLDERS; i++)
			if (q->image->holders[i] == pid)
				return 1;
	}
	return own_opens(q) > 0;
}

/* forbidden is the contract's table for an image in use: its rows are the operations, its columns the callers. */
static __always_inline int forbidden(struct question *q, struct count *count, int declared)
{
	int holder = holds(q);
	int manager = q->class & CLASS_MANAGER && !(q->class & CLASS_VMM);
	int open = count && (count->writers || (declared && count->all));
	if (declared == DECLARED_DEFINED && manager && !open)
		return 0; /* snapshots, resizing, removal with the domain */
	switch (q->op) {
	case OP_WRITE: /* QEMU's own locks keep two VMMs apart; libvirt locks a byte of a disk that it has opened */
		return !(holder || manager || q->class & CLASS_VMM);
	case OP_WRITE_DATA:
		return !(holder || q->class & CLASS_VMM);
	case OP_TRUNCATE:
	case OP_SET_FLAGS:
		return !holder;
	case OP_COVER: /* by a mount: what opens it next gets something else */
		return !(holder || manager);
	}
	/* names; one of a directory is that of all below it */
	if ((q->inode->i_mode & S_IFMT) == S_IFDIR || (q->image && q->image->flags & IMAGE_ALWAYS))
		return 1;
	if (q->op == OP_UNLINK && !declared && count && own_opens(q) == count->all)
		return 0; /* a VMM's own file: a guest's memory on hugetlbfs, an overlay that goes with QEMU */
	return holder || manager ? open : 1;
}

/* What is written to a loop device its thread writes to the file below it, by a descriptor that losetup has opened. */
static __always_inline int is_loop_thread(__u32 op)
{
	return op == OP_WRITE_DATA && bpf_get_current_task_btf()->flags & PF_KTHREAD;
}

static __always_inline int excepted(struct question *q)
{
	if (!q->image)
		return 0;
	struct allowance *a = &q->image->allowance;
	__u32 op = q->op == OP_WRITE_DATA ? OP_WRITE : q->op == OP_REPLACE ? OP_RENAME : q->op;
	if (!(a->ops & 1 << op) || bpf_ktime_get_boot_ns() > a->until || (__u32)bpf_get_current_uid_gid() != a->uid)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	if (a->login != ~0U && bpf_core_field_exists(task->loginuid) && task->loginuid.val != a->login)
		return 0;
	if (!a->once)
		return 1;
	__u32 pid = tgid(), first = __sync_val_compare_and_swap(&a->user, 0, pid);
	if (!first || first == pid)
		return 1;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		task = task->real_parent;
		if (task->tgid == first)
			return 1;
	}
	return 0;
}

static __always_inline int same(const char *a, const char *b, int length)
{
	for (int i = 0; i < length; i++)
		if (a[i] != b[i])
			return 0;
	return 1;
}

/*
 * util-linux's mount and losetup take EBUSY for a loop device that somebody else has taken, and try the next one for ever;
 * ETXTBSY ends that (guard/retrier.go).
 */
static __always_inline int retries(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	char name[16] = {};
	const unsigned char *exe = BPF_CORE_READ(task, mm, exe_file, f_path.dentry, d_name.name);
	bpf_probe_read_kernel_str(name, sizeof(name), exe);
	return same(name, "mount", sizeof("mount")) || same(name, "losetup", sizeof("losetup"));
}

static __always_inline __u32 terminal(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct tty_struct *tty = BPF_CORE_READ(task, signal, tty);
	if (!tty)
		return 0;
	return BPF_CORE_READ(tty, driver, major) << 20 | (BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index));
}

static __always_inline int only_watched(struct question *q)
{
	return q->image ? !!(q->image->flags & IMAGE_AUDIT) : settings.audit;
}

static __always_inline void report(struct question *q, __u32 kind, __u32 error)
{
	struct event *e = event(kind, q->inode);
	if (!e)
		return;
	struct task_struct *task = bpf_get_current_task_btf();
	e->op = q->op;
	e->start = started(task->group_leader);
	e->uid = bpf_get_current_uid_gid();
	e->class = q->class;
	e->tty = terminal();
	e->namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	e->error = error;
	e->audit = only_watched(q);
	if (q->image) {
		e->id = q->image->id;
		e->exception = kind == EVENT_ALLOWED ? q->image->allowance.exception : 0;
	}
	if (q->view)
		e->dev = q->view;
	if (q->dentry)
		bpf_probe_read_kernel_str(e->name, sizeof(e->name), q->dentry->d_name.name);
	bpf_ringbuf_submit(e, 0);
}

/*
 * A hook's error is a negative constant from here on: since 6.12 the verifier wants to see that it is one between -4095 and 0,
 * and it does not follow a negation.
 */
static __always_inline int refuse(struct question *q, int error)
{
	__sync_fetch_and_add(&refusals, 1);
	report(q, EVENT_REFUSED, -error);
	return only_watched(q) ? 0 : error;
}

static __always_inline int is_view(struct super_block *sb)
{
	__u32 dev = BPF_CORE_READ(sb, s_dev);
	return BPF_CORE_READ(sb, s_magic) == FUSE_SUPER_MAGIC && bpf_map_lookup_elem(&views, &dev);
}

/*
 * judged_above: opened by the kernel for passthrough of a view, which has judged. Others that have files opened in this way have not:
 * overlayfs, and other FUSE file systems, whose own descriptor may be one for reading. FMODE_BACKING would say no more than that the
 * file has a path above, and is another bit from kernel to kernel (6.12.117 has that of 6.14).
 */
static __always_inline int judged_above(struct file *file)
{
	struct backing_file *b = (struct backing_file *)file; /* its first member */
	if (!(file->f_mode & FMODE_NOACCOUNT) || !bpf_core_field_exists(b->user_path))
		return 0;
	return is_view(BPF_CORE_READ(b, user_path.mnt, mnt_sb));
}

/* judge is 0, or the error that the caller gets. */
static __noinline int judge(struct inode *inode, __u32 op, struct dentry *dentry)
{
	struct question q = { .inode = inode, .dentry = dentry, .op = op };
	if (!inode)
		return 0;
	q.key = image_key(inode);
	switch (inode->i_mode & S_IFMT) {
	case S_IFBLK:;
		__u32 dev = inode->i_rdev;
		if (op != OP_WRITE && op != OP_TRUNCATE && op != OP_WRITE_DATA && op != OP_SET_FLAGS)
			return 0; /* a node is no device */
		q.op = op == OP_TRUNCATE ? OP_WRITE : op; /* a device cannot be */
		q.image = bpf_map_lookup_elem(&devices, &dev);
		break;
	case S_IFCHR:;
		__u32 node = inode->i_rdev, *disk = bpf_map_lookup_elem(&nodes, &node);
		if (op != OP_WRITE_DATA || !disk)
			return 0;
		q.key = *disk;
		q.image = bpf_map_lookup_elem(&devices, disk);
		break;
	case S_IFDIR:
		if (op != OP_RENAME && op != OP_REPLACE)
			return 0;
	case S_IFREG:
		q.image = bpf_inode_storage_get(&declared, inode, 0, 0);
		break;
	default:
		return 0;
	}
	struct count *count = bpf_map_lookup_elem(&counts, &q.key);
	int declared = is_declared(q.image);
	if (!declared) {
		if (!count || !count->writers)
			return 0;
		if (inode->i_size > 0 && inode->i_size <= MAX_NOTE && (inode->i_mode & S_IFMT) == S_IFREG)
			return 0;
	}
	/* A view judges by itself what comes through it: it knows its rules and exceptions. */
	if (op != OP_COVER && is_view(inode->i_sb))
		return 0;
	q.class = current_class();
	if (q.class & CLASS_TRUSTED || !((q.image ? q.image->deny : settings.deny) & 1 << q.op))
		return 0;
	if (q.image && q.image->flags & IMAGE_BELOW && (q.class & CLASS_STORAGE || is_loop_thread(op)))
		return 0;
	if (!forbidden(&q, count, declared))
		return 0;
	if (excepted(&q)) {
		report(&q, EVENT_ALLOWED, 0);
		return 0;
	}
	return refuse(&q, q.op == OP_WRITE && retries() ? -ETXTBSY : -EBUSY);
}

struct bpf_map;

struct search {
	__u64 namespace; /* 0: any */
	__u32 found;
};

static long find_view(struct bpf_map *map, __u32 *dev, struct view *v, struct search *s)
{
	if (!v->opens || (s->namespace && v->namespace != s->namespace))
		return 0;
	s->found = *dev;
	return 1;
}

/* busy_view is the device number of a view that VMMs have files of open; 0: there is none. */
static __always_inline __u32 busy_view(__u64 namespace)
{
	struct search s = { namespace };
	bpf_for_each_map_elem(&views, find_view, &s, 0);
	return s.found;
}

static __always_inline int judge_view(__u32 dev, __u32 op)
{
	struct view *v = bpf_map_lookup_elem(&views, &dev);
	struct question q = { .op = op, .view = dev, .class = current_class() };
	return !v || !v->opens || q.class & CLASS_TRUSTED || !settings.deny ? 0 : refuse(&q, -EBUSY);
}

static __always_inline int judge_mount(struct vfsmount *mnt, __u32 op)
{
	__u32 id = BPF_CORE_READ(container_of(mnt, struct mount, mnt), mnt_id);
	__u32 *dev = bpf_map_lookup_elem(&mounts, &id);
	return dev ? judge_view(*dev ?: busy_view(0), op) : 0;
}

/* judge_cover: nothing is mounted over a view, which would hide it from the managers, nor over an image. */
static __always_inline int judge_cover(const struct path *path)
{
	struct vfsmount *mnt = path->mnt;
	struct inode *inode = path->dentry->d_inode;
	__u32 dev = mnt->mnt_sb->s_dev;
	__u32 id = BPF_CORE_READ(container_of(mnt, struct mount, mnt), mnt_id);
	if (inode && (inode->i_mode & S_IFMT) == S_IFREG)
		return judge(inode, OP_COVER, path->dentry);
	if (path->dentry != mnt->mnt_root || !bpf_map_lookup_elem(&mounts, &id))
		return 0;
	return judge_view(dev, OP_COVER);
}

static __always_inline int judge_any_move(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	return judge_view(busy_view((__u64)BPF_CORE_READ(task, nsproxy, mnt_ns)), OP_MOVE);
}
