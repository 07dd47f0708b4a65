// SPDX-License-Identifier: Apache-2.0

// Package need says what a test needs of the machine, and skips the test, naming everything that is missing and what to
// do about it, where it cannot be had.
//
// With IMGWARD_TEST_REQUIRE=1, as `make test` sets it, nothing may be missing but a feature of the kernel: there a skip
// for any other reason is a failure.
package need

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Marks at the beginning of a reason to skip, by which test/gotest knows the ones that are allowed everywhere.
const (
	KernelMark = "kernel: "
	LongMark   = "long: "
	ExtraMark  = "extra: "
)

// Required reports whether the machine is meant to have everything (IMGWARD_TEST_REQUIRE=1).
func Required() bool { return os.Getenv("IMGWARD_TEST_REQUIRE") == "1" }

// All reports whether the long tests run as well, as `make test-all` asks for (IMGWARD_TEST_ALL=1).
func All() bool { return os.Getenv("IMGWARD_TEST_ALL") == "1" }

// Have skips the test unless the machine has all of these.
func Have(t testing.TB, things ...Thing) {
	t.Helper()
	if lacks := Missing(things...); len(lacks) > 0 {
		Skip(t, list(lacks))
	}
}

// Kernel skips the test because the running kernel lacks something: feature names it, and from which version or with which
// option a kernel has it. The caller has asked the kernel; a version number says nothing of what a distribution built.
// But where the version is all that it takes, "(Linux 6.18)", and nothing may be missing, a kernel that has it fails.
func Kernel(t testing.TB, feature string) {
	t.Helper()
	if release := kernelRelease(); Required() && newEnough(release, feature) {
		t.Fatalf("this kernel (%s) ought to have %s", release, feature)
	}
	t.Skip(KernelMark + "this kernel has no " + feature)
}

// Skip skips the test for any other reason, which is a failure where nothing may be missing.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if Required() {
		t.Fatalf("nothing may be missing here (IMGWARD_TEST_REQUIRE=1), but: %s", reason)
	}
	t.Skip(reason)
}

// Long leaves the test to `make test-all`.
func Long(t testing.TB) {
	t.Helper()
	if !All() {
		t.Skip(LongMark + "left to make test-all (IMGWARD_TEST_ALL=1)")
	}
}

// Extra skips the test unless these programs are there, everywhere: `make deps` leaves them out, for they are large and one
// test needs them. packages are Debian's that have them.
func Extra(t testing.TB, packages string, programs ...string) {
	t.Helper()
	if lack := Tools(programs...)(); lack != nil {
		t.Skip(ExtraMark + lack.What + " (apt-get install " + packages + ")")
	}
}

// list is one line for all that is missing.
func list(lacks []Lack) string {
	var all []string
	for _, l := range lacks {
		all = append(all, l.String())
	}
	return strings.Join(all, "; ")
}

var floor = regexp.MustCompile(`\(Linux (\d+)\.(\d+)\)`)

// newEnough says whether a kernel has a feature by the version that is given with it alone.
func newEnough(release, feature string) bool {
	m := floor.FindStringSubmatch(feature)
	var major, minor, from, fromMinor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || m == nil {
		return false
	}
	fmt.Sscan(m[1]+" "+m[2], &from, &fromMinor)
	return major > from || major == from && minor >= fromMinor
}

func kernelRelease() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}
