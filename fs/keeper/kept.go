// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kept is what a worker finds with the keeper, left by its predecessor.
type Kept struct {
	// Files are descriptors by name; empty for a new mount. They are bare numbers, not os.Files, which the garbage
	// collector would close.
	Files map[string]int
	// Died is when the predecessor ended; zero if that is not known, or there was none.
	Died time.Time
}

// firstFd is where passed descriptors begin (SD_LISTEN_FDS_START).
const firstFd = 3

// Receive returns what a predecessor left, and takes word of it out of the environment. A process that our own keeper
// started waits for its turn in here. Meanwhile it may be asked whether it could serve on the state that it is shown: try
// says why not. io.EOF: its turn will not come.
func Receive(try func(state *os.File) error) (*Kept, error) {
	if conn, err := ordersFd(); err != nil || conn >= 0 {
		if err != nil {
			return nil, err
		}
		return await(conn, try) // conn stays open: that it closes is how the keeper learns of this process's end
	}
	defer func() {
		for _, name := range []string{"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"} {
			_ = os.Unsetenv(name) // fails for no name
		}
	}()
	kept, err := listenFds()
	return &Kept{Files: kept}, err
}

// listenFds is sd_listen_fds_with_names(3). Descriptors of one name are the same file; the last is returned.
func listenFds() (map[string]int, error) {
	count := os.Getenv("LISTEN_FDS")
	if pid := os.Getenv("LISTEN_PID"); count == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a number of descriptors", count)
	}
	if n == 0 {
		return nil, nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	if len(names) != n {
		return nil, fmt.Errorf("%d descriptors were passed with %d names", n, len(names))
	}
	kept := make(map[string]int, n)
	for i, name := range names {
		unix.CloseOnExec(firstFd + i)
		kept[name] = firstFd + i
	}
	return kept, nil
}
