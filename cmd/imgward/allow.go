// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard"
	"imgward/guard/policy"
)

// allowFlags are what an exception is asked for with.
type allowFlags struct {
	ops    []string
	last   time.Duration
	once   bool
	reason string
	list   bool
	revoke uint64
	asJSON bool
}

func newAllow() *cobra.Command {
	var f allowFlags
	c := &cobra.Command{
		Use: `allow --op OPS --for DURATION --reason TEXT PATH
  imgward allow --list [DIR]
  imgward allow --revoke ID [DIR]`,
		DisableFlagsInUseLine: true,
		Short:                 "Allow one operation on one image for a short time",
		Long: `Allow yourself, and nobody else, to do something to one image that would be
refused. The log keeps who asked, from which terminal, and why. The exception
belongs to the file, not to its name. It ends when its time is over, when it
has been used (--once), when you revoke it, or when the view is unmounted. A
restart of the daemon does not end it.

Many programs do more than one thing: dd and truncate(1) open the file for
writing and then write, so both need --op truncate,write. With --once, the
first command that uses the exception may use it, with its children, until it
ends. A file that was opened by an exception can be written until that ends.
` + exitHelp,
		Example: `  imgward allow --op truncate,write --for 2m --once \
      --reason "INC-4711: start over" vm-disk2.img
  imgward allow --list
  imgward allow --revoke 3`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.list:
				return f.listed(cmd, args)
			case f.revoke != 0:
				return f.revoked(cmd, args)
			}
			return f.granted(cmd, args)
		},
	}
	c.Flags().StringSliceVar(&f.ops, "op", nil, "what to allow: any `OPS` of truncate, write, unlink, rename, set-flags, or all")
	c.Flags().DurationVar(&f.last, "for", 0, "how long it holds, as 90s, 5m or 2h (24h at most)")
	c.Flags().BoolVar(&f.once, "once", false, "for a single command")
	c.Flags().StringVar(&f.reason, "reason", "", "why: `TEXT` for those who ask later")
	c.Flags().BoolVar(&f.list, "list", false, "list the exceptions that hold")
	c.Flags().Uint64Var(&f.revoke, "revoke", 0, "end the exception with this `ID`")
	c.MarkFlagsMutuallyExclusive("list", "revoke", "op")
	jsonFlag(c, &f.asJSON)
	return c
}

func (f *allowFlags) granted(cmd *cobra.Command, args []string) error {
	ops, err := policy.ParseOps(f.ops)
	switch {
	case err != nil:
		return usageError{err}
	case len(args) == 0:
		return usageError{errors.New("allow: which image?")}
	case ops == 0 || f.last <= 0 || strings.TrimSpace(f.reason) == "":
		return usageError{errors.New("allow: --op, --for and --reason are all needed")}
	case strings.TrimSpace(f.reason) == guard.ReasonPlaceholder:
		return usageError{errors.New("allow: write your reason instead of " + guard.ReasonPlaceholder)}
	case f.last > guard.MaxException:
		return usageError{fmt.Errorf("allow: %.0fh at most; for longer, change the policy", guard.MaxException.Hours())}
	}
	view, rel, err := place(args[0])
	if err != nil {
		return err
	}
	ask := control.AllowRequest{Path: rel, Ops: ops, Seconds: f.last.Seconds(), Once: f.once, Reason: f.reason}
	return control.Dial(view).Post(cmd.Context(), "allow", ask, f.printer(cmd))
}

// place is the daemon that an image is asked about, and what that calls it.
func place(path string) (daemon, name string, err error) {
	if !isDevice(path) {
		if daemon, name, err = control.Find(path); err == nil || !control.SecondRuns() {
			return daemon, name, err
		}
		// The guard protects what is in no view, where the kernel has what that takes.
	}
	if err := guardRuns(path); err != nil {
		return "", "", err
	}
	name, err = filepath.Abs(path)
	return control.SecondName, name, err
}

func (f *allowFlags) listed(cmd *cobra.Command, args []string) error {
	views, err := chosenDaemons(args)
	if err != nil {
		return err
	}
	none, show := true, f.printer(cmd)
	for _, v := range views {
		if err := control.Dial(v).Get(cmd.Context(), "exceptions", nil, func(line []byte) error { none = false; return show(line) }); err != nil {
			return err
		}
	}
	if none && !f.asJSON {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "no exception is in force")
	}
	return err
}

// revoked ends an exception. Each view numbers its own, so with several views one has to be named.
func (f *allowFlags) revoked(cmd *cobra.Command, args []string) error {
	views, err := oneDaemon(args)
	if err != nil {
		return err
	}
	if len(views) != 1 {
		return usageError{fmt.Errorf("allow --revoke: of which view? There are %d: %v", len(views), views)}
	}
	return control.Dial(views[0]).Delete(cmd.Context(), "exceptions/"+strconv.FormatUint(f.revoke, 10))
}

func (f *allowFlags) printer(cmd *cobra.Command) func([]byte) error {
	return func(line []byte) error {
		if f.asJSON {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line)
			return err
		}
		var e control.ExceptionLine
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), describeException(&e.Exception))
		return err
	}
}
