// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Soon is how long a daemon that is not stopped takes to answer, but for a machine that is too busy.
const Soon = 2 * time.Second

// Stopped says which process of a view's daemon is stopped, by a signal or a debugger, and therefore does not answer; nil: none.
func Stopped(mountpoint string) error {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range processes {
		cmdline, err := os.ReadFile(filepath.Join(proc, "cmdline"))
		if err != nil || !bytes.HasSuffix(cmdline, []byte("\x00"+mountpoint+"\x00")) || !bytes.Contains(cmdline, []byte("\x00worker\x00")) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(proc, "status"))
		if err != nil {
			continue
		}
		for _, state := range []string{"T (stopped)", "t (tracing stop)"} {
			if strings.Contains(string(status), "\nState:\t"+state+"\n") {
				return fmt.Errorf("the daemon of %s does not answer: process %s is stopped (kill -CONT %[2]s); what the kernel does not pass through waits for it",
					mountpoint, filepath.Base(proc))
			}
		}
	}
	return nil
}
