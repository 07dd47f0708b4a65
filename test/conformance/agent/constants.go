// SPDX-License-Identifier: Apache-2.0

package agent

import "golang.org/x/sys/unix"

// constants are the flags that a script may name. It is never changed.
var constants = map[string]int{
	"0": 0,

	"O_RDONLY": unix.O_RDONLY, "O_WRONLY": unix.O_WRONLY, "O_RDWR": unix.O_RDWR, "O_CREAT": unix.O_CREAT,
	"O_EXCL": unix.O_EXCL, "O_TRUNC": unix.O_TRUNC, "O_APPEND": unix.O_APPEND, "O_NONBLOCK": unix.O_NONBLOCK,
	"O_SYNC": unix.O_SYNC, "O_DSYNC": unix.O_DSYNC, "O_DIRECT": unix.O_DIRECT, "O_DIRECTORY": unix.O_DIRECTORY,
	"O_NOFOLLOW": unix.O_NOFOLLOW, "O_PATH": unix.O_PATH, "O_TMPFILE": unix.O_TMPFILE, "O_NOATIME": unix.O_NOATIME,
	// Access mode 3 asks for both permissions and gives a descriptor that can neither read nor write.
	"O_ACCMODE": unix.O_ACCMODE,

	"RENAME_NOREPLACE": unix.RENAME_NOREPLACE, "RENAME_EXCHANGE": unix.RENAME_EXCHANGE,
	"RENAME_WHITEOUT": unix.RENAME_WHITEOUT,

	"XATTR_CREATE": unix.XATTR_CREATE, "XATTR_REPLACE": unix.XATTR_REPLACE,

	"KEEP_SIZE": unix.FALLOC_FL_KEEP_SIZE, "PUNCH_HOLE": unix.FALLOC_FL_PUNCH_HOLE,
	"ZERO_RANGE": unix.FALLOC_FL_ZERO_RANGE, "COLLAPSE_RANGE": unix.FALLOC_FL_COLLAPSE_RANGE,
	"INSERT_RANGE": unix.FALLOC_FL_INSERT_RANGE, "UNSHARE_RANGE": unix.FALLOC_FL_UNSHARE_RANGE,

	"SEEK_SET": unix.SEEK_SET, "SEEK_CUR": unix.SEEK_CUR, "SEEK_END": unix.SEEK_END, "SEEK_DATA": unix.SEEK_DATA,
	"SEEK_HOLE": unix.SEEK_HOLE,

	"R_OK": unix.R_OK, "W_OK": unix.W_OK, "X_OK": unix.X_OK, "F_OK": 0,

	"LOCK_SH": unix.LOCK_SH, "LOCK_EX": unix.LOCK_EX, "LOCK_UN": unix.LOCK_UN, "LOCK_NB": unix.LOCK_NB,

	"AT_SYMLINK_FOLLOW": unix.AT_SYMLINK_FOLLOW, "AT_SYMLINK_NOFOLLOW": unix.AT_SYMLINK_NOFOLLOW,
	"AT_EMPTY_PATH": unix.AT_EMPTY_PATH, "AT_EACCESS": unix.AT_EACCESS, "AT_REMOVEDIR": unix.AT_REMOVEDIR,
}
