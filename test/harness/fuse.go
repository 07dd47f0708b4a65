// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const fusectl = "/sys/fs/fuse/connections"

// fuseMount is one FUSE mount of the sandbox: the mount namespace began as a copy of the host's, whose own FUSE mounts are
// none of our business.
type fuseMount struct {
	point  string
	fstype string // fuse.imgward
	minor  int    // of its device number: the name of its connection below fusectl
}

// fuseMounts reads the kernel's table; it asks the mounts themselves nothing, for a dead one would not answer.
func fuseMounts() ([]fuseMount, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []fuseMount
	for _, line := range strings.Split(string(table), "\n") {
		mount, source, ok := strings.Cut(line, " - ")
		fstype, _, _ := strings.Cut(source, " ")
		if !ok || fstype != "fuse" && !strings.HasPrefix(fstype, "fuse.") {
			continue
		}
		fields := strings.Fields(mount)
		if !within(fields[4], os.Getenv(rootEnv)) {
			continue
		}
		_, minor, _ := strings.Cut(fields[2], ":")
		n, err := strconv.Atoi(minor)
		if err != nil {
			return nil, fmt.Errorf("mountinfo: %q: %w", line, err)
		}
		found = append(found, fuseMount{point: fields[4], fstype: fstype, minor: n})
	}
	return found, nil
}

func mountFusectl() error {
	if _, err := os.Stat(fusectl); err != nil {
		return fmt.Errorf("the kernel has no FUSE: %w", err)
	}
	if err := unix.Mount("fusectl", fusectl, "fusectl", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount fusectl: %w", err)
	}
	return nil
}

// abortViews aborts the connections of all FUSE mounts of the sandbox: every request that hangs in one fails with
// ENOTCONN, so that a test that met its deadline can end instead of staying in the kernel for ever.
func abortViews() error {
	mounts, err := fuseMounts()
	for _, m := range mounts {
		err = errors.Join(err, os.WriteFile(fmt.Sprintf("%s/%d/abort", fusectl, m.minor), []byte("1"), 0o200))
	}
	return err
}
