// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// ioErrors returns the lines of the kernel's log that speak of a disk in trouble.
func ioErrors() ([]string, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/kmsg: %w", err)
	}
	defer unix.Close(fd)
	var lines []string
	record := make([]byte, 8192)
	for {
		n, err := unix.Read(fd, record) // one record per read
		switch {
		case errors.Is(err, unix.EAGAIN):
			return lines, nil
		case errors.Is(err, unix.EPIPE): // overwritten before it was read; the next read goes on after the gap
			continue
		case err != nil:
			return lines, fmt.Errorf("read /dev/kmsg: %w", err)
		}
		if line := string(record[:n]); troubled(line) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
}

// troubled knows what Linux 6.1 logs for a failed or a hanging request.
func troubled(line string) bool {
	for _, sign := range []string{"I/O error", "i/o error", "critical target error", "critical medium error",
		"timed out", "blocked for more than", "Remounting filesystem read-only"} {
		if strings.Contains(line, sign) {
			return true
		}
	}
	return false
}
