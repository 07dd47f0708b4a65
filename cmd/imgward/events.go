// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

func newEvents() *cobra.Command {
	var asJSON, follow bool
	c := &cobra.Command{
		Use:   "events [-f] [DIR]",
		Short: "Show recent refusals and exceptions",
		Long:  "Show a view's most recent events. With -f, go on with new ones until the view\nends.\n" + exitHelp,
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			choose := chosenDaemons
			if follow {
				choose = oneDaemon
			}
			views, err := some(choose(args))
			if err != nil {
				return err
			}
			show := func(line []byte) error { return printEvent(cmd.OutOrStdout(), line, asJSON, len(views) > 1) }
			if follow {
				if len(views) > 1 {
					return usageError{fmt.Errorf("-f follows one view: say which of %v", views)}
				}
				return control.Dial(views[0]).Follow(cmd.Context(), show)
			}
			return history(cmd.Context(), views, show)
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with events as they happen")
	return c
}

// history shows the events of views, of all together in the order of time.
func history(ctx context.Context, views []string, show func(line []byte) error) error {
	type event struct {
		Time time.Time
		line []byte
	}
	var list []event
	for _, v := range views {
		err := control.Dial(v).Get(ctx, "events", nil, func(line []byte) error {
			e := event{line: bytes.Clone(line)}
			list = append(list, e)
			return json.Unmarshal(line, &list[len(list)-1])
		})
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(list, func(a, b event) int { return a.Time.Compare(b.Time) })
	for _, e := range list {
		if err := show(e.line); err != nil {
			return err
		}
	}
	return nil
}

func printEvent(w io.Writer, line []byte, asJSON, named bool) error {
	if asJSON {
		_, err := fmt.Fprintf(w, "%s\n", line)
		return err
	}
	var e guard.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	view := ""
	if named {
		view = shown(e.View) + ": "
	}
	_, err := fmt.Fprintf(w, "%s %s%s\n", e.Time.Local().Format(time.DateTime), view, describeEvent(&e))
	return err
}
