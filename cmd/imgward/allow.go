package main

import (
	"encoding/json"
	"errors"
	"fmt"
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
		Use:   "allow --op OPS --for DURATION --reason TEXT PATH | --list [DIR] | --revoke ID [DIR]",
		Short: "Let one operation on one image through for a time",
		Long: `Let you, and nobody else, do to one image what would be refused. The exception
is for the inode behind PATH, and stands in the log with who asked, from which
terminal, and why. It holds until its time is over, it is used (--once) or
revoked; a restart of the daemon does not end it, the end of the view does.

Many programs do more than one thing: truncate(1) opens for writing first, and
dd goes on writing, so both need --op truncate,write.
` + exitHelp,
		Example: `  imgward allow --op truncate --for 2m --once --reason "INC-4711: start over" vm-disk2.img
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
	c.Flags().BoolVar(&f.once, "once", false, "for a single use")
	c.Flags().StringVar(&f.reason, "reason", "", "`TEXT` for those who ask later")
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
	case f.last > guard.MaxException:
		return usageError{fmt.Errorf("allow: %v at most; what is to hold for longer belongs into the policy", guard.MaxException)}
	}
	view, rel, err := control.Find(args[0])
	if err != nil {
		return err
	}
	ask := control.AllowRequest{Path: rel, Ops: ops, Seconds: f.last.Seconds(), Once: f.once, Reason: f.reason}
	return control.Dial(view).Post(cmd.Context(), "allow", ask, f.printer(cmd))
}

func (f *allowFlags) listed(cmd *cobra.Command, args []string) error {
	views, err := chosenViews(args)
	if err != nil {
		return err
	}
	for _, v := range views {
		if err := control.Dial(v).Get(cmd.Context(), "exceptions", nil, f.printer(cmd)); err != nil {
			return err
		}
	}
	return nil
}

// revoked ends an exception. Each view numbers its own, so with several views one has to be named.
func (f *allowFlags) revoked(cmd *cobra.Command, args []string) error {
	views, err := chosenViews(args)
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
