// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain is the command itself when a test starts it.
func TestMain(m *testing.M) {
	if os.Getenv("IMGWARD_GOTEST_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func gotest(t *testing.T, env []string, args ...string) (string, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), "IMGWARD_GOTEST_MAIN=1", "SUMMARY="), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSkips(t *testing.T) {
	out, err := gotest(t, []string{"IMGWARD_TEST_REQUIRE="}, "skips", "./testdata/skips")
	if err != nil {
		t.Errorf("a skip is no failure on any machine: %v\n%s", err, out)
	}
	out, err = gotest(t, []string{"IMGWARD_TEST_REQUIRE=1", "IMGWARD_TEST_ALL="}, "skips", "./testdata/skips")
	if err == nil || !strings.Contains(out, "FAIL: TestNoReason") {
		t.Errorf("a skip without a reason is a failure where nothing may be missing\n%s", out)
	}
	if strings.Contains(out, "FAIL: TestKernel") || strings.Contains(out, "FAIL: TestLong") {
		t.Errorf("a missing kernel feature, and what make test-all runs, may be skipped\n%s", out)
	}
}

// The end says why, in a line for each test, under the suite's.
func TestReasons(t *testing.T) {
	out, err := gotest(t, nil, "fails", "./testdata/fails")
	if want := "      TestFails/one: fails_test.go:13: the reason\n"; err == nil || !strings.Contains(out[strings.Index(out, "FAIL  fails"):], want) {
		t.Errorf("%v: the end does not say %q:\n%s", err, want, out)
	}
}

func TestHang(t *testing.T) {
	out, err := gotest(t, nil, "-hang", "3s", "hangs", "./testdata/hangs")
	if err == nil || !strings.Contains(out, "hangs_test.go:10") {
		t.Errorf("a test that hangs is ended, and says where it hung: %v\n%s", err, out)
	}
}

func TestNoPackages(t *testing.T) {
	if out, err := gotest(t, nil, "none", "-v"); err == nil {
		t.Errorf("a suite without packages has passed:\n%s", out)
	}
}
