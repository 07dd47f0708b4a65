package main

import (
	"encoding/json"
	"fmt"
	"io"
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
		Long:  "Show the recent events of a view (a bounded history), and with -f those to come, until it ends.\n" + exitHelp,
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := chosenViews(args)
			if err != nil {
				return err
			}
			show := func(line []byte) error { return printEvent(cmd.OutOrStdout(), line, asJSON) }
			if follow {
				if len(views) > 1 {
					return usageError{fmt.Errorf("-f follows one view: say which of %v", views)}
				}
				return control.Dial(views[0]).Follow(cmd.Context(), show)
			}
			for _, v := range views {
				if err := control.Dial(v).Get(cmd.Context(), "events", nil, show); err != nil {
					return err
				}
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with events as they happen")
	return c
}

func printEvent(w io.Writer, line []byte, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(w, "%s\n", line)
		return err
	}
	var e guard.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s %s\n", e.Time.Local().Format(time.DateTime), describeEvent(&e))
	return err
}
