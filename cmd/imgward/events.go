package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
)

func newEvents() *cobra.Command {
	var asJSON, follow bool
	c := &cobra.Command{
		Use:   "events [-f] [DIR]",
		Short: "Show recent refusals and exceptions",
		Long:  "Show the recent events of a view (a bounded history), and with -f those to come.\n" + exitHelp,
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := chosenViews(args)
			if err != nil {
				return err
			}
			query := url.Values{}
			if follow {
				query.Set("follow", "1")
				if len(views) > 1 {
					return usageError{fmt.Errorf("-f follows one view: say which of %v", views)}
				}
			}
			for _, v := range views {
				err := control.Dial(v).Get(cmd.Context(), "events", query, func(line []byte) error {
					return printEvent(cmd.OutOrStdout(), line, asJSON)
				})
				if err != nil {
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

// event is what all kinds of events share, as far as a person reads them.
type event struct {
	Type, Time, Op, Path, Comm, Domain, Target, Message string
	PID                                                 int
}

func printEvent(w io.Writer, line []byte, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(w, "%s\n", line)
		return err
	}
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	if e.Message != "" {
		_, err := fmt.Fprintf(w, "%s %s: %s\n", e.Time, e.Type, e.Message)
		return err
	}
	_, err := fmt.Fprintf(w, "%s %s: %s of %s by %s (pid %d): %s of %s\n", e.Time, e.Type, e.Op, e.Path, e.Comm, e.PID, e.Target, e.Domain)
	return err
}
