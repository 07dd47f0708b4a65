// SPDX-License-Identifier: Apache-2.0

package secondlayer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/lsm"
	"imgward/guard/policy"
	"imgward/test/harness"
)

// TestMain has the test's own binary be a command in the guest, where it is called "layer".
func TestMain(m *testing.M) {
	if os.Getenv("LAYER") == "" {
		os.Exit(harness.Main(m))
	}
	if err := layer(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "layer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

var classes = map[string]lsm.Class{"vmm": lsm.VMM, "manager": lsm.Manager, "trusted": lsm.Trusted, "storage": lsm.Storage}

func layer(verb string, args []string) error {
	switch verb {
	case "remove":
		return lsm.Remove(lsm.DefaultDir)
	case "cost": // PATH WHEN
		return cost(args[0], args[1])
	case "call": // NAME PATH
		return calls[args[0]](args[1])
	case "foreign": // DIR PATH
		return serveForeign(args[0], args[1])
	case "exchange":
		return unix.Renameat2(unix.AT_FDCWD, args[0], unix.AT_FDCWD, args[1], unix.RENAME_EXCHANGE)
	}
	l, err := lsm.Load(lsm.DefaultDir, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	switch verb {
	case "load": // CLASS=PROGRAM …
		for _, arg := range args {
			class, path, _ := strings.Cut(arg, "=")
			if err := l.Program(path, classes[class]); err != nil {
				return err
			}
		}
		return l.CountOpen()
	case "vmm": // PID
		pid, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return errors.Join(l.Process(pid, lsm.VMM), l.CountOpen())
	case "strict", "lax":
		return l.Strict(verb == "strict")
	case "views":
		_, err := l.KeepViews()
		return err
	case "many": // DIR NUMBER PID
		return declareMany(l, args[0], args[1], args[2])
	case "refusals":
		refused, lost := l.Refusals()
		fmt.Println(refused, lost)
		return nil
	case "use": // PATH PID
		pid, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		if err := l.Process(pid, lsm.Holder); err != nil {
			return err
		}
		f, err := os.OpenFile(args[0], unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return err
		}
		return l.Declare([]lsm.Image{{ID: guard.StatID(&st), Holders: []int{pid}, Deny: policy.AllOps, File: f}})
	}
	return fmt.Errorf("no verb %q", verb)
}
