// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

func newStatus() *cobra.Command {
	var asJSON, check bool
	c := &cobra.Command{
		Use:   "status [--check] [DIR]",
		Short: "Show the views, and which images are in use by whom",
		Long: `Show each view, how it serves, and the images in use below it. For monitoring,
--check prints a line for each view and fails (1) unless DIR, or all of the
views and at least one, is protected now.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check {
				return checkStatus(cmd.Context(), cmd.OutOrStdout(), args)
			}
			views, err := chosenDaemons(args)
			if err != nil {
				return err
			}
			var failed []error // a view that does not answer does not hide the others
			for i, v := range views {
				if i > 0 && !asJSON {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				failed = append(failed, showStatus(cmd.Context(), cmd.OutOrStdout(), v, asJSON))
			}
			if len(views) == 0 && !asJSON {
				fmt.Fprintln(cmd.OutOrStdout(), errNoViews)
			}
			if len(args) == 0 {
				failed = append(failed, showOrphan(cmd.OutOrStdout(), asJSON))
			}
			return errors.Join(failed...)
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVar(&check, "check", false, "say in a line whether DIR is protected, and fail if it is not")
	return c
}

// errNoViews is what there is to say where no view is mounted.
var errNoViews = errors.New("no imgward view is mounted (imgward mount DIR)")

// someViews is chosenViews for a command that has nothing to do where there is none.
func someViews(args []string) ([]string, error) { return some(chosenViews(args)) }

func some(views []string, err error) ([]string, error) {
	if err == nil && len(views) == 0 {
		err = errNoViews
	}
	return views, err
}

// chosenViews is the view that an argument is in, or all of them.
func chosenViews(args []string) ([]string, error) {
	if len(args) == 0 {
		return control.Views()
	}
	v, _, err := control.Find(args[0])
	if err == nil || errors.Is(err, control.ErrBeside) {
		return []string{v}, nil
	}
	if !errors.Is(err, control.ErrNoView) {
		return nil, err
	}
	// Nothing is there, but a view that was, or is covered, is asked by its own name.
	dir, absErr := filepath.Abs(args[0])
	if p, namedErr := control.Named(dir); absErr == nil && namedErr == nil {
		return []string{p.Name}, nil
	}
	return nil, err
}

func showStatus(ctx context.Context, w io.Writer, mountpoint string, asJSON bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(control.Soon, func() {
		if err := control.Stopped(mountpoint); err != nil {
			cancel(err)
		}
	})
	defer silent.Stop()
	err := control.Dial(mountpoint).Get(ctx, "status", nil, func(line []byte) error {
		silent.Stop()
		if asJSON {
			_, err := fmt.Fprintf(w, "%s\n", line)
			return err
		}
		return printStatusLine(w, line)
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func printStatusLine(w io.Writer, line []byte) error {
	var kind struct{ Type string }
	if err := json.Unmarshal(line, &kind); err != nil {
		return err
	}
	switch kind.Type {
	case "view":
		return decoded(line, w, printView)
	case "guard":
		return decoded(line, w, printGuard)
	case "layer":
		return decoded(line, w, printLayer)
	case "hold":
		return decoded(line, w, printHold)
	case "exception":
		return decoded(line, w, printException)
	case "image":
		return decoded(line, w, printImage)
	}
	return nil
}

// decoded prints a line of JSON as what it is.
func decoded[T any](line []byte, w io.Writer, print func(io.Writer, *T)) error {
	var v T
	if err := json.Unmarshal(line, &v); err != nil {
		return err
	}
	print(w, &v)
	return nil
}

func printException(w io.Writer, e *control.ExceptionLine) {
	fmt.Fprintf(w, "  EXCEPTION %s\n", describeException(&e.Exception))
}

func printImage(w io.Writer, img *control.Image) {
	for i, u := range img.Uses {
		name := shown(img.Path)
		switch {
		case i > 0:
			name = ""
		case name == "":
			name = "every image"
		}
		fmt.Fprintf(w, "  %-28s %s", name, describeUse(u))
		if i == 0 && img.Unprotected != "" {
			fmt.Fprintf(w, "  NOT PROTECTED: %s", img.Unprotected)
		}
		fmt.Fprintln(w)
	}
}

func printView(w io.Writer, v *control.View) {
	mode := "passthrough"
	if !v.Passthrough {
		mode = "through the daemon"
	}
	state := "protected"
	switch {
	case !v.Reachable:
		state = "NOT REACHED; mounted"
	case !v.Protected:
		state = fmt.Sprintf("NOT protected (%s), mounted", v.Unprotected)
	}
	fmt.Fprintf(w, "%s: %s since %s, %s", v.Mountpoint, state, v.Mounted.Format(time.DateTime), mode)
	if v.Backing != v.Mountpoint {
		fmt.Fprintf(w, ", shows %s", v.Backing)
	}
	fmt.Fprintf(w, ", policy: %s", v.Policy)
	fmt.Fprintf(w, "\n  daemon pid %d (keeper %d), generation %d, %d open, %d refused\n",
		v.PID, v.KeeperPID, v.Generation, v.Handles, v.Refusals)
	for _, warning := range v.Warnings {
		fmt.Fprintf(w, "  WARNING: %s\n", shown(warning))
	}
}

// describeUse is one reason in words: "vdb (disk) of rhevm, pid 1234 [libvirt]"; without libvirt, "qemu-system-x86_64, pid
// 1234 [view]".
func describeUse(u guard.Use) string {
	var b strings.Builder
	switch {
	case u.Problem != "" && u.Domain != "":
		return fmt.Sprintf("the status file of domain %s cannot be read (%s: %s) [%s]", shown(u.Domain), shown(u.Path), shown(u.Problem), u.Evidence)
	case u.Problem != "":
		return fmt.Sprintf("libvirt's directory %s cannot be read: %s [%s]", shown(u.Path), shown(u.Problem), u.Evidence)
	case u.Evidence == guard.EvidenceLock && u.PID == 0 && u.Role != guard.RoleUnknown:
		fmt.Fprintf(&b, "%s of %s: QEMU on another host, or in a container (its locks are held)", u.Role, shown(u.Path))
	case u.Target != "":
		fmt.Fprintf(&b, "%s (%s)", u.Target, u.Role)
	case u.Domain != "" || u.Role != guard.RoleUnknown:
		b.WriteString(string(u.Role))
	case u.Evidence == guard.EvidenceLock && u.PID == 0:
		b.WriteString("QEMU on another host, or in a container (its locks are held)")
	case u.Program != "":
		b.WriteString(shown(u.Program))
	default:
		b.WriteString("unknown")
	}
	if u.Domain != "" {
		fmt.Fprintf(&b, " of %s", shown(u.Domain))
	}
	if u.PID != 0 {
		fmt.Fprintf(&b, ", pid %d", u.PID)
	}
	if !u.Writable {
		b.WriteString(", read-only")
	}
	fmt.Fprintf(&b, " [%s]", u.Evidence)
	if u.Layer != "" {
		fmt.Fprintf(&b, ", by way of %s", shown(u.Layer))
	}
	return b.String()
}
