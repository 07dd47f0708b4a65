// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/script"
)

// compareWithBacking checks that what the view shows of every file that a case left is what the file is: the view is
// read first, as its user would see it, with whatever the kernel still has cached.
func (r *runner) compareWithBacking(t *testing.T, v script.Variant) {
	if r.place.backing == "" {
		return
	}
	shown, err := describeTree(r.caseDir)
	if err != nil {
		t.Errorf("[%s] the view cannot be read: %v", v.Bindings, err)
		return
	}
	real, err := describeTree(filepath.Join(r.place.backing, "case"))
	if err != nil {
		t.Fatal(err)
	}
	for path := range maps.Keys(union(real, shown)) {
		if real[path] != shown[path] {
			t.Errorf("%s:%d [%s] the view shows something else than there is, of %q\n\tthere is %s\n\tit shows %s",
				v.Steps[0].File, v.Steps[0].Line, v.Bindings, path, real[path], shown[path])
		}
	}
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// describeTree gives each file below dir as a line of all that can be seen of it. Long trees are cut: their depth is
// what a case is about, and no path is long enough to name them.
func describeTree(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, unix.ENAMETOOLONG) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		line, err := describe(path)
		out[strings.TrimPrefix(path, dir)] = line
		return err
	})
	return out, err
}

func describe(path string) (string, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if errors.Is(err, unix.ENAMETOOLONG) {
		return "too deep", nil
	}
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("mode=%o uid=%d gid=%d nlink=%d size=%d ino=%d rdev=%d:%d mtime=%d.%09d ctime=%d.%09d",
		st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Ino, st.Rdev_major, st.Rdev_minor, st.Mtime.Sec, st.Mtime.Nsec,
		st.Ctime.Sec, st.Ctime.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return line + " -> " + target, err
	case unix.S_IFREG:
		sum, err := checksum(path)
		return line + xattrs(path) + " " + sum, err
	}
	return line + xattrs(path), nil
}

// checksum reads at most a megabyte: cases that make larger files are about their holes.
func checksum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.CopyN(h, f, 1<<20)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), err
}

func xattrs(path string) string {
	buf := make([]byte, 65536)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return " xattrs: " + err.Error()
	}
	var out []string
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 65536)
		if m, err := unix.Lgetxattr(path, name, value); err == nil {
			out = append(out, fmt.Sprintf(" %s=%x", name, sha256.Sum256(value[:m])))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "")
}

// removeAll removes a case's directory, also when the case left files immutable.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// chattr says what it could not do, but the removal that follows is what counts.
	exec.Command("chattr", "-R", "-f", "-i", "-a", dir).Run()
	return os.RemoveAll(dir)
}
