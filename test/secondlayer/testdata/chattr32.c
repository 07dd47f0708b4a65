/* SPDX-License-Identifier: Apache-2.0 */
/* chattr +i /data/vm.img by a 32-bit program: another ioctl, which comes another way. It needs no library. */

static int call(int number, int a, int b, int c)
{
	int result;
	__asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

void _start(void)
{
	int flags;
	int fd = call(5, (int)"/data/vm.img", 0, 0);
	int got = call(54, fd, 0x80046601, (int)&flags); /* FS_IOC32_GETFLAGS */
	flags |= 0x10; /* FS_IMMUTABLE_FL */
	call(1, got || call(54, fd, 0x40046602, (int)&flags), 0, 0); /* FS_IOC32_SETFLAGS */
}
