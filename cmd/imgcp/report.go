// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	imgcopy "imgward/copy"
	"imgward/copy/domain/archive"
	"imgward/copy/move"
)

const reportHelp = `Say how the copies at DEST stand, while they are made or years later: which are
whole, verified, pending or failed, and what is missing. With --verify each file
is read from the medium and compared with its BLAKE3 digest.

The exit status is 0 if all are whole, 6 if something is not what was copied,
and 1 if something is missing.
`

// reportFlags are the options of imgcp report.
type reportFlags struct{ json, verify, quiet bool }

func newReportCommand() *cobra.Command {
	var f reportFlags
	c := &cobra.Command{
		Use:     "report [OPTIONS] DEST",
		Short:   "Say how the copies of domains at DEST stand",
		Long:    reportHelp,
		Example: "  imgcp report /evacuation\n  imgcp report --verify --json /evacuation/vm1",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("one directory of copies is needed; see imgcp report --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), cmd.OutOrStdout(), args[0]) },
	}
	c.Flags().BoolVar(&f.verify, "verify", false, "read every file and compare it with its digest")
	c.Flags().BoolVar(&f.json, "json", false, "print an object a line for each copy, and one for all")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print only what is not whole")
	return c
}

// reportEvent is what --json prints of a copy.
type reportEvent struct {
	Type string `json:"type"` // "domain-report"
	archive.Report
}

// reportTotal ends it.
type reportTotal struct {
	Type     string `json:"type"` // "report"
	Domains  int    `json:"domains"`
	Verified int    `json:"verified"`
	Whole    int    `json:"whole"`
	Pending  int    `json:"pending"`
	Failed   int    `json:"failed"`
	Bytes    int64  `json:"bytes"`
}

func (f *reportFlags) run(ctx context.Context, out io.Writer, dest string) error {
	dirs, err := archive.List(dest)
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return fmt.Errorf("there is no copy of a domain at %s", dest)
	}
	digest, end, err := f.digest()
	if err != nil {
		return err
	}
	defer end()
	total := reportTotal{Type: "report"}
	for _, dir := range dirs {
		r, err := archive.Examine(ctx, dir, digest)
		if err != nil {
			return err
		}
		total.add(r)
		f.print(out, r)
	}
	if f.json {
		_ = json.NewEncoder(out).Encode(total)
	} else {
		fmt.Fprintf(out, "%s: %d verified, %d whole, %d pending, %d failed; %s\n", move.Count(total.Domains, "domain"), total.Verified, total.Whole,
			total.Pending, total.Failed, move.Bytes(total.Bytes))
	}
	switch {
	case total.Failed > 0 && f.verify:
		return errors.Join(errReported, imgcopy.ErrVerify)
	case total.Failed+total.Pending > 0:
		return errReported
	}
	return nil
}

// digest reads files as imgcp verify does: one that is being written to has no digest.
func (f *reportFlags) digest() (archive.Digest, func(), error) {
	if !f.verify {
		return nil, func() {}, nil
	}
	w, err := newWorld(slog.LevelWarn)
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, path string) (string, int64, error) {
		sum, size, err := imgcopy.Digest(ctx, path, copyDefaults(w))
		return sum.String(), size, err
	}, w.close, nil
}

func (t *reportTotal) add(r archive.Report) {
	t.Domains++
	t.Bytes += r.Bytes
	switch r.Condition {
	case archive.IsVerified:
		t.Verified++
	case archive.IsWhole:
		t.Whole++
	case archive.IsPending:
		t.Pending++
	default:
		t.Failed++
	}
}

func (f *reportFlags) print(out io.Writer, r archive.Report) {
	if f.json {
		_ = json.NewEncoder(out).Encode(reportEvent{"domain-report", r})
		return
	}
	good := r.Condition == archive.IsVerified || r.Condition == archive.IsWhole
	if f.quiet && good {
		return
	}
	name := r.Domain
	if name == "" {
		name = r.Dir
	}
	fmt.Fprintf(out, "%-8s  %s  %d of %s, %s\n", r.Condition, printable(name), r.Whole, move.Count(r.Files, "file"), move.Bytes(r.Bytes))
	if r.Error != "" {
		fmt.Fprintf(out, "          %s\n", printable(r.Error))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(out, "          %s %s", p.Condition, printable(p.Path))
		if p.Why != "" {
			fmt.Fprintf(out, ": %s", printable(p.Why))
		}
		fmt.Fprintln(out)
	}
	for _, o := range r.Missing {
		fmt.Fprintf(out, "          not copied: %s %s: %s\n", printable(o.Target), printable(o.Source), printable(o.Why))
	}
}
