/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who is who, and what VMMs have open. */

static __always_inline __u32 tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

static __always_inline __u64 started(struct task_struct *task)
{
	return task->start_boottime / 10000000; /* USER_HZ is 100 */
}

static __always_inline struct process *current_process(void)
{
	__u32 pid = tgid();
	struct process *p = bpf_map_lookup_elem(&processes, &pid);
	if (!p)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	return p->start == started(task->group_leader) ? p : 0;
}

static __always_inline __u32 current_class(void)
{
	struct process *p = current_process();
	return p ? p->class : 0;
}

static __always_inline struct number number_of(struct inode *inode)
{
	struct number n = { inode->i_ino, inode->i_sb->s_dev, inode->i_generation };
	return n;
}

/* The first inode that an open leads to is the one that an executable is known by: overlayfs opens the real one after it. */
static __always_inline void answer(struct inode *inode, __u32 thread)
{
	struct number n = number_of(inode);
	bpf_map_update_elem(&answers, &thread, &n, BPF_NOEXIST);
}

/* note_exec gives a process the class of what it executes now. What a manager starts stays the manager's. */
static __always_inline void note_exec(struct inode *inode)
{
	struct number n = number_of(inode);
	__u32 *class = bpf_map_lookup_elem(&programs, &n);
	__u32 pid = tgid();
	struct process *p = bpf_map_lookup_elem(&processes, &pid);
	__u32 kept = p ? p->class & (CLASS_MANAGER | CLASS_HOLDER) : 0;
	__u32 now = kept | (class ? *class : 0);
	if (p) {
		p->class = now;
	} else if (now) {
		struct task_struct *task = bpf_get_current_task_btf();
		struct process new = { started(task->group_leader), now };
		bpf_map_update_elem(&processes, &pid, &new, BPF_ANY);
	}
}

static __always_inline void note_fork(struct task_struct *parent, struct task_struct *child)
{
	__u32 pid = parent->tgid, new = child->tgid;
	if (pid == new)
		return; /* a thread */
	struct process *p = bpf_map_lookup_elem(&processes, &pid);
	if (!p || !(p->class & ~CLASS_HOLDER))
		return;
	struct process copy = { started(child), p->class & ~CLASS_HOLDER };
	bpf_map_update_elem(&processes, &new, &copy, BPF_ANY);
}

/* image_key is 0 for what is no image. */
static __always_inline __u64 image_key(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFBLK:
		return inode->i_rdev;
	case S_IFREG:
		return (__u64)inode;
	}
	return 0;
}

static __always_inline struct event *event(__u32 kind, struct inode *inode)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->pid = tgid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	if (inode) {
		e->ino = inode->i_ino;
		e->dev = inode->i_sb->s_dev;
		e->rdev = (inode->i_mode & S_IFMT) == S_IFBLK ? inode->i_rdev : 0;
	}
	return e;
}

static __always_inline void report_use(__u32 kind, struct inode *inode)
{
	struct event *e = event(kind, inode);
	if (e)
		bpf_ringbuf_submit(e, 0);
}

/* A log is opened for writing alone, or for appending; what lies on these file systems is no image. */
static __always_inline int may_be_image(struct file *file, struct inode *inode)
{
	if (!(file->f_mode & FMODE_READ) || file->f_flags & O_APPEND)
		return 0;
	switch (inode->i_sb->s_magic) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP2_SUPER_MAGIC:
		return 0;
	}
	return 1;
}

/*
 * note_open counts what a VMM opens. Libraries are among it, which are opened for reading: those count for the view and
 * for managers, never as evidence by themselves.
 */
static __always_inline void note_open(struct file *file, struct inode *inode, __u32 pid, int report)
{
	__u64 image = image_key(inode), key = (__u64)file;
	if (!image)
		return;
	struct open o = { image, pid, inode->i_sb->s_dev, file->f_mode & FMODE_WRITE && may_be_image(file, inode) };
	struct view *v = bpf_map_lookup_elem(&views, &o.view);
	if (!v)
		o.view = 0;
	if (bpf_map_update_elem(&opens, &key, &o, BPF_NOEXIST))
		return; /* known, or no room */
	struct count zero = {}, *c;
	bpf_map_update_elem(&counts, &image, &zero, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&counts, &image);
	if (!c)
		return;
	__sync_fetch_and_add(&c->all, 1);
	if (v) {
		__sync_fetch_and_add(&v->opens, 1);
		v->namespace = (__u64)BPF_CORE_READ(container_of(file->f_path.mnt, struct mount, mnt), mnt_ns);
	}
	if (!o.write)
		return;
	if (__sync_fetch_and_add(&c->writers, 1) == 0 && report)
		report_use(EVENT_OPENED, inode);
	struct holding h = { image, pid };
	__u64 none = 0, *n;
	bpf_map_update_elem(&holdings, &h, &none, BPF_NOEXIST);
	n = bpf_map_lookup_elem(&holdings, &h);
	if (n)
		__sync_fetch_and_add(n, 1);
}

/* note_close also comes for files whose open(2) failed after file_open had passed. The inode may be gone by then. */
static __always_inline void note_close(__u64 file)
{
	struct open *found = bpf_map_lookup_elem(&opens, &file);
	if (!found)
		return;
	struct open o = *found;
	if (bpf_map_delete_elem(&opens, &file))
		return;
	struct view *v = o.view ? bpf_map_lookup_elem(&views, &o.view) : 0;
	if (v && v->opens) /* or it is another with the same number */
		__sync_fetch_and_add(&v->opens, -1);
	struct count *c = bpf_map_lookup_elem(&counts, &o.image);
	if (c)
		__sync_fetch_and_add(&c->all, -1);
	if (!o.write)
		return;
	if (c && __sync_fetch_and_add(&c->writers, -1) == 1)
		report_use(EVENT_CLOSED, 0);
	struct holding h = { o.image, o.pid };
	__u64 *n = bpf_map_lookup_elem(&holdings, &h);
	if (n && __sync_fetch_and_add(n, -1) == 1)
		bpf_map_delete_elem(&holdings, &h);
}
