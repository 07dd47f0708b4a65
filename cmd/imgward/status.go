package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

func newStatus() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status [DIR]",
		Short: "Show views, images in use and by whom",
		Long:  "Show each view, how it serves, and the images in use below it.\n" + exitHelp,
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := chosenViews(args)
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
				fmt.Fprintln(cmd.OutOrStdout(), "no imgward view is mounted (imgward mount DIR)")
			}
			return errors.Join(failed...)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// chosenViews is the view that an argument is in, or all of them.
func chosenViews(args []string) ([]string, error) {
	if len(args) == 0 {
		return control.Views()
	}
	v, _, err := control.Find(args[0])
	if err != nil {
		return nil, err
	}
	return []string{v}, nil
}

func showStatus(ctx context.Context, w io.Writer, mountpoint string, asJSON bool) error {
	return control.Dial(mountpoint).Get(ctx, "status", nil, func(line []byte) error {
		if asJSON {
			_, err := fmt.Fprintf(w, "%s\n", line)
			return err
		}
		return printStatusLine(w, line)
	})
}

func printStatusLine(w io.Writer, line []byte) error {
	var kind struct{ Type string }
	if err := json.Unmarshal(line, &kind); err != nil {
		return err
	}
	switch kind.Type {
	case "view":
		var v control.View
		if err := json.Unmarshal(line, &v); err != nil {
			return err
		}
		printView(w, &v)
	case "exception":
		var e control.ExceptionLine
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		fmt.Fprintf(w, "  EXCEPTION %s\n", describeException(&e.Exception))
	case "image":
		var img control.Image
		if err := json.Unmarshal(line, &img); err != nil {
			return err
		}
		for i, u := range img.Uses {
			name := shown(img.Path)
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(w, "  %-28s %s\n", name, describeUse(u))
		}
	}
	return nil
}

func printView(w io.Writer, v *control.View) {
	mode := "passthrough"
	if !v.Passthrough {
		mode = "through the daemon"
	}
	fmt.Fprintf(w, "%s: protected since %s, %s", v.Mountpoint, v.Mounted.Format(time.DateTime), mode)
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

// describeUse is one reason in words: "vdb (disk) of rhevm, pid 1234 [libvirt]".
func describeUse(u guard.Use) string {
	var b strings.Builder
	if u.Target != "" {
		fmt.Fprintf(&b, "%s (%s)", u.Target, u.Role)
	} else {
		b.WriteString(string(u.Role))
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
	return b.String()
}
