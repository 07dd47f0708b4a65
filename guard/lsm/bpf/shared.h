/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the programs and the loader share: the Go structures of the same names are in ../structs.go. */
#ifndef SHARED_H
#define SHARED_H

/* Operations; the bit of one in a mask is 1 << it. */
enum op {
	OP_WRITE = 1,
	OP_TRUNCATE,
	OP_UNLINK,
	OP_RENAME,
	OP_REPLACE,
	OP_WRITE_DATA,
	OP_SET_FLAGS,
	OP_UMOUNT,
	OP_MOVE,
	OP_COVER,
};

/* What a process is. */
#define CLASS_VMM 1
#define CLASS_MANAGER 2
#define CLASS_TRUSTED 4 /* imgward itself, and what the policy trusts */
#define CLASS_STORAGE 8 /* manages devices below those in use: LVM, multipath, boot loaders */
#define CLASS_HOLDER 16 /* a running domain's process */

/* An image that the daemon has declared. */
#define IMAGE_USED 1  /* in use whoever lives: a saved domain's, another host's, by the policy */
#define IMAGE_BELOW 2 /* a device below one in use: storage managers pass */
#define IMAGE_MANY 4  /* more holders than there is room for: in use while the daemon does not say otherwise */
#define IMAGE_ALWAYS 8   /* the policy keeps it, also from managers */
#define IMAGE_DEFINED 16 /* a domain would use it that does not run: managers work on it */
#define IMAGE_AUDIT 32   /* by the policy's rule for it: only report what would be refused */

#define HOLDERS 8

struct settings {
	__u32 audit;      /* only watch: report what would be refused, and let it through */
	__u32 deny;       /* what is refused for an image that is not declared */
	__u32 generation; /* what was declared by daemons before this one does not hold any more */
	__u32 pad;
};

/* An exception (imgward allow). */
struct allowance {
	__u64 until; /* nanoseconds since boot, suspend included */
	__u64 exception;
	__u32 ops;
	__u32 uid;
	__u32 login; /* ~0: any */
	__u32 once;  /* for the process that is the first to use it, and its children */
	__u32 user;  /* that process */
	__u32 pad;
};

struct image {
	__u32 id; /* the daemon's number for it */
	__u32 flags;
	__u32 deny; /* operations that are refused */
	__u32 generation;
	__u32 holders[HOLDERS];
	struct allowance allowance;
};

struct process {
	__u64 start; /* clock ticks since boot, as in /proc/PID/stat */
	__u32 class;
	__u32 pad;
};

/* By which the kernel knows an inode. stat(2) tells other device numbers on overlayfs and btrfs. */
struct number {
	__u64 ino;
	__u32 dev;
	__u32 generation;
};

struct open {
	__u64 image;
	__u32 pid;
	__u32 view;
	__u32 write;
	__u32 pad;
};

struct count {
	__u64 writers;
	__u64 all;
};

struct holding {
	__u64 image;
	__u32 pid;
	__u32 pad;
};

struct view {
	__u64 opens;
	__u64 namespace; /* the address of its mount namespace, once a VMM has opened something through it */
};

#define EVENT_REFUSED 1
#define EVENT_ALLOWED 2 /* by an exception */
#define EVENT_OPENED 3  /* a VMM has opened an image for writing that nobody had */
#define EVENT_CLOSED 4  /* and nobody has any more */

struct event {
	__u32 kind;
	__u32 op;
	__u32 id; /* of the image; 0: not declared */
	__u32 dev;
	__u64 ino;
	__u64 start;
	__u64 exception;
	__u32 rdev;
	__u32 pid;
	__u32 uid;
	__u32 class;
	__u32 tty;
	__u32 error;
	__u32 audit;
	__u32 namespace; /* the number of its mount namespace, in which tty means something */
	char comm[16];
	char name[256];
};

#endif
