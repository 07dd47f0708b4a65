// SPDX-License-Identifier: Apache-2.0

// Package policy tests policy × operation × caller on a real mount: the built imgward, real processes that are told apart
// by where their programs lie, and what each of them gets.
package policy

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/test/harness"
	"imgward/test/uring"
)

// A caller is a copy of this test's own program at some path, run with an operation to do in callerEnv.
const callerEnv = "IMGWARD_TEST_DO"

func TestMain(m *testing.M) {
	if op := os.Getenv(callerEnv); op == "hold" {
		hold(os.Args[1])
	} else if op != "" {
		fmt.Print(code(do(op, os.Args[1])))
		os.Exit(0)
	}
	// In a sandbox, so that the host's own views, and what earlier runs left, are not there to be asked and compared.
	os.Exit(harness.Main(m))
}

// do does one thing to a file. It leaves the file as it was, as far as it was let.
func do(op, path string) error {
	flag, ok := map[string]int{
		"read": os.O_RDONLY, "write": os.O_WRONLY, "rdwr": os.O_RDWR, "append": os.O_WRONLY | os.O_APPEND, "o_trunc": os.O_WRONLY | os.O_TRUNC,
	}[op]
	if ok {
		f, err := os.OpenFile(path, flag, 0)
		if err != nil {
			return err
		}
		return f.Close()
	}
	if by := uringOps[op]; by != nil {
		r, err := uring.New()
		if err != nil {
			return err
		}
		return by(r, path)
	}
	away := path + ".away"
	switch op {
	case "truncate":
		return os.Truncate(path, 4096)
	case "unlink":
		// Another name stays, so that the next caller finds it.
		if err := os.Link(path, away); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			unix.Unlink(away)
			return err
		}
		if err := os.Link(away, path); err != nil {
			return err
		}
		return os.Remove(away)
	case "rename":
		if err := os.Rename(path, away); err != nil {
			return err
		}
		return os.Rename(away, path)
	case "replace":
		if err := os.WriteFile(away, make([]byte, 4096), 0o644); err != nil {
			return err
		}
		defer os.Remove(away)
		return os.Rename(away, path)
	case "rename-dir":
		dir := filepath.Dir(path)
		if err := os.Rename(dir, dir+".away"); err != nil {
			return err
		}
		return os.Rename(dir+".away", dir)
	case "chattr":
		return immutable(path)
	case "chmod":
		return os.Chmod(path, 0o644)
	case "link":
		if err := os.Link(path, away); err != nil {
			return err
		}
		return nil
	case "proc-fd": // opened for reading, and then again for writing by its descriptor
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return w.Close()
	case "o_path": // the same with a descriptor that is good for nothing else
		fd, err := unix.Open(path, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		return os.Truncate(fmt.Sprintf("/proc/self/fd/%d", fd), 4096)
	}
	return fmt.Errorf("no such operation: %s", op)
}

const immutableFlag = 0x10 // FS_IMMUTABLE_FL, <linux/fs.h>

// immutable sets the flag that keeps even root from writing, and takes it off again.
func immutable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|immutableFlag); err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// hold opens a file for writing, says how that went, and writes once for each line that it reads.
func hold(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fmt.Println(code(err))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		_, err := f.WriteAt([]byte{0}, 0)
		fmt.Println(code(err))
	}
	os.Exit(0)
}

func code(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// program puts a copy of this program somewhere. Nobody has the inode of another.
func program(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// does has a program do something as a user, and returns "ok" or the errno's name.
func does(t *testing.T, program string, uid uint32, op, path string) string {
	t.Helper()
	cmd := exec.Command(program, path)
	cmd.Env = append(os.Environ(), callerEnv+"="+op)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	out, err := cmd.Output() // a VMM is told why on its standard error
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, op, err, out)
	}
	return strings.TrimSpace(string(out))
}
