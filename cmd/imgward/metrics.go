// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/doctor"
	"imgward/cmd/imgward/metrics"
	viewfs "imgward/fs"
	"imgward/fs/mounttable"
)

func newMetrics() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "metrics [--textfile FILE]",
		Short: "Print the metrics of all views for Prometheus",
		Long: `Print the metrics of all views of this host in Prometheus' text format, or
write them to a file for node_exporter's textfile collector, as
imgward-metrics.timer does. imgward_view_up is 0 for a view that should be
there and is not: its daemon is dead, something else unmounted it, or an
enabled unit or /etc/fstab names it. After imgward umount it is left out.
` + exitHelp,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := gather(cmd.Context())
			if err != nil {
				return err
			}
			if file != "" {
				return writeTextfile(file, h)
			}
			_, err = h.WriteTo(cmd.OutOrStdout())
			return err
		},
	}
	c.Flags().StringVar(&file, "textfile", "", "write to FILE, at one stroke, instead of standard output")
	return c
}

// answerTime is how long a daemon may take for its metrics; a successor takes over in less.
const answerTime = 8 * time.Second

// gather asks the daemons of all views that are there or ought to be.
func gather(ctx context.Context) (*metrics.Host, error) {
	views, err := expectedViews()
	if err != nil {
		return nil, err
	}
	h := metrics.NewHost(time.Now())
	for _, view := range views {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		text, err := control.Dial(view).Metrics(ctx)
		cancel()
		if err != nil {
			fmt.Fprintf(os.Stderr, "imgward: %v\n", err)
			text = nil
		}
		if err := h.Add(view, text); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// expectedViews lists the views that have a daemon, those that have lost it, those whose mount is left without one, and
// those that a boot mounts.
func expectedViews() ([]string, error) {
	places, err := control.Places()
	if err != nil {
		return nil, err
	}
	views, err := control.Missing()
	if err != nil {
		return nil, err
	}
	t, err := mounttable.Now()
	if err != nil {
		return nil, err
	}
	served := map[uint64]bool{}
	for _, p := range places {
		views = append(views, p.Name)
		if p.At != nil {
			served[mounttable.Device(p.At)] = true
		}
	}
	for _, m := range t.All() {
		if m.FSType == viewfs.FSType && !served[mounttable.Device(m)] {
			views = append(views, m.Mountpoint)
		}
	}
	for _, dir := range doctor.AtBoot() {
		// The directory itself is the view, which may not answer.
		if above, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
			dir = filepath.Join(above, filepath.Base(dir))
		}
		views = append(views, dir)
	}
	slices.Sort(views)
	return slices.Compact(views), nil
}

// writeTextfile puts a new file in the place of the one before: node_exporter must not read half of one. It is readable by
// all, for node_exporter is not root.
func writeTextfile(path string, text io.WriterTo) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".imgward-metrics-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it has its name by then, if all went well
	_, err = text.WriteTo(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
