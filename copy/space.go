package imgcopy

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkSpace refuses a copy of size bytes that cannot fit into the file system behind f (a file on it, or a directory),
// counting holes out by asking need only if there is a doubt.
func checkSpace(f *os.File, size int64, need func() (int64, error)) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || st.Blocks == 0 { // some network file systems say nothing
		return nil
	}
	free := int64(st.Bavail)
	if os.Geteuid() == 0 {
		free = int64(st.Bfree) // root may use the reserve
	}
	if free *= int64(st.Frsize); size <= free {
		return nil
	}
	bytes, err := need()
	if err != nil || bytes <= free {
		return err
	}
	return fmt.Errorf("%w: the copy needs %s, %s are free where %s is", ErrNoSpace, Bytes(bytes), Bytes(free), f.Name())
}

// Bytes is n for people, in binary units with one decimal.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < 5 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[unit])
}
