/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What ioctl(2) destroys. Most of it takes a descriptor for reading alone, of root. */

/* include/uapi/linux/fs.h, fsverity.h, loop.h, blkpg.h; fs/ext4/ext4.h; fs/xfs/libxfs/xfs_fs.h */
#define FS_IOC_SETFLAGS 0x40086602
#define FS_IOC32_SETFLAGS 0x40046602
#define FS_IOC_FSSETXATTR 0x401c5820
#define FS_IOC_ENABLE_VERITY 0x40806685
#define EXT4_IOC_SWAP_BOOT 0x6611
#define XFS_IOC_SWAPEXT 0xc0c0586d
#define BLKROSET 0x125d
#define BLKPG 0x1269
#define BLKPG_RESIZE_PARTITION 3
#define BLKDISCARD 0x1277
#define BLKSECDISCARD 0x127d
#define BLKZEROOUT 0x127f
#define LOOP_SET_STATUS 0x4c02
#define LOOP_SET_STATUS64 0x4c04
#define LOOP_CHANGE_FD 0x4c06
#define LOOP_SET_BLOCK_SIZE 0x4c09
/* include/uapi/linux/blkdev.h, by io_uring since 6.12 */
#define BLOCK_URING_CMD_DISCARD 0x1200
/* include/scsi/sg.h, include/uapi/linux/nvme_ioctl.h */
#define SG_IO 0x2285
#define SG_IO_CMDP 24 /* where struct sg_io_hdr has its cmdp, */
#define SG_IO_V4_REQUEST 16 /* struct sg_io_v4 its request, */
#define SEND_COMMAND_DATA 8 /* and struct scsi_ioctl_command its data */
#define SCSI_IOCTL_SEND_COMMAND 1
#define NVME_CDW10 40 /* where struct nvme_passthru_cmd has that */
#define NVME_IOCTL_ADMIN_CMD 0xc0484e41
#define NVME_IOCTL_SUBMIT_IO 0x40304e42
#define NVME_IOCTL_IO_CMD 0xc0484e43
#define NVME_IOCTL_ADMIN64_CMD 0xc0504e47
#define NVME_IOCTL_IO64_CMD 0xc0504e48
#define NVME_IOCTL_IO64_CMD_VEC 0xc0504e49

/* What is not in memory reads as 0, which destroys nothing: whoever calls has just written it. */
static __always_inline __u8 byte_at(unsigned long address)
{
	__u8 byte = 0;
	bpf_probe_read_user(&byte, sizeof(byte), (void *)address);
	return byte;
}

/* ACS: a command that ATA PASS-THROUGH carries. */
static __always_inline int ata_destroys(__u8 command)
{
	switch (command) {
	case 0x06: /* DATA SET MANAGEMENT: TRIM */
	case 0x30: /* WRITE SECTORS, and its kind */
	case 0x34:
	case 0x35:
	case 0x39:
	case 0x3d:
	case 0x45: /* WRITE UNCORRECTABLE */
	case 0x61:
	case 0xb4: /* SANITIZE DEVICE */
	case 0xc5:
	case 0xca:
	case 0xce:
	case 0xf4: /* SECURITY ERASE UNIT */
		return 1;
	}
	return 0;
}

/* SPC, SBC: by the command's first byte. Inquiries, SMART and persistent reservations (of clusters) are none of it. */
static __always_inline int scsi_destroys(unsigned long command)
{
	switch (byte_at(command)) {
	case 0x04: /* FORMAT UNIT */
	case 0x0a: /* WRITE, and its kind */
	case 0x2a:
	case 0x8a:
	case 0xaa:
	case 0x2e: /* … AND VERIFY */
	case 0x8e:
	case 0xae:
	case 0x3f: /* WRITE LONG */
	case 0x41: /* WRITE SAME */
	case 0x93:
	case 0x42: /* UNMAP */
	case 0x48: /* SANITIZE */
	case 0x89: /* COMPARE AND WRITE */
		return 1;
	case 0x85:
		return ata_destroys(byte_at(command + 14));
	case 0xa1:
		return ata_destroys(byte_at(command + 9));
	}
	return 0;
}

static __always_inline unsigned long sg_command(unsigned long header)
{
	unsigned long command = 0, at = byte_at(header) == 'Q' ? SG_IO_V4_REQUEST : SG_IO_CMDP;
	bpf_probe_read_user(&command, sizeof(command), (void *)(header + at));
	return command;
}

/* struct nvme_passthru_cmd and struct nvme_user_io begin with the opcode. */
static __always_inline int nvme_admin_destroys(unsigned long command)
{
	switch (byte_at(command)) {
	case 0x0d: /* Namespace Management: delete */
		return (byte_at(command + NVME_CDW10) & 0xf) == 1;
	case 0x80: /* Format NVM */
	case 0x84: /* Sanitize */
		return 1;
	}
	return 0;
}

static __always_inline int nvme_destroys(unsigned long command)
{
	switch (byte_at(command)) {
	case 0x01: /* Write */
	case 0x04: /* Write Uncorrectable */
	case 0x08: /* Write Zeroes */
	case 0x09: /* Dataset Management */
	case 0x19: /* Copy */
	case 0x79: /* Zone Management Send */
		return 1;
	}
	return 0;
}

/*
 * ioctl_op is what an ioctl does to its file as an operation, or 0. chattr +i stops a VM's writes as surely as a truncation would,
 * and so do blockdev --setro, fs-verity and a smaller partition; a loop device can be made to show other bytes, or to take no small
 * writes. None of it needs a descriptor for writing. What discards, or exchanges a file's blocks for another's, needs one, but no
 * write(2), which would be judged by file_permission.
 */
static __always_inline __u32 ioctl_op(unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case BLKPG:
		return byte_at(arg) == BLKPG_RESIZE_PARTITION ? OP_SET_FLAGS : 0;
	case BLKROSET:
	case LOOP_SET_STATUS:
	case LOOP_SET_STATUS64:
	case LOOP_CHANGE_FD:
	case LOOP_SET_BLOCK_SIZE:
	case FS_IOC_SETFLAGS:
	case FS_IOC32_SETFLAGS:
	case FS_IOC_FSSETXATTR:
	case FS_IOC_ENABLE_VERITY:
		return OP_SET_FLAGS;
	case BLKDISCARD:
	case BLKSECDISCARD:
	case BLKZEROOUT:
	case EXT4_IOC_SWAP_BOOT:
	case XFS_IOC_SWAPEXT:
		return OP_WRITE_DATA;
	case SG_IO:
		return scsi_destroys(sg_command(arg)) ? OP_WRITE_DATA : 0;
	case SCSI_IOCTL_SEND_COMMAND:
		return scsi_destroys(arg + SEND_COMMAND_DATA) ? OP_WRITE_DATA : 0;
	case NVME_IOCTL_ADMIN_CMD:
	case NVME_IOCTL_ADMIN64_CMD:
		return nvme_admin_destroys(arg) ? OP_WRITE_DATA : 0;
	case NVME_IOCTL_SUBMIT_IO:
	case NVME_IOCTL_IO_CMD:
	case NVME_IOCTL_IO64_CMD:
	case NVME_IOCTL_IO64_CMD_VEC:
		return nvme_destroys(arg) ? OP_WRITE_DATA : 0;
	}
	return 0;
}
