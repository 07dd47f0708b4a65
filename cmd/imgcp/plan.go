// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	imgcopy "imgward/copy"
	"imgward/copy/move"
)

// stepEvent is a step as --json prints it.
type stepEvent struct {
	Type string `json:"type"` // "step"
	From string `json:"source"`
	To   string `json:"destination"`
	move.Step
}

// printPlans prints what would be done for each image; one that cannot be copied does not hide the others' plans.
func (f *copyFlags) printPlans(cmd *cobra.Command, jobs []*job, o imgcopy.Options) error {
	out := cmd.OutOrStdout()
	enc := json.NewEncoder(out)
	errs := make([]error, len(jobs))
	for i, j := range jobs {
		if !f.json {
			fmt.Fprintf(out, "%s → %s\n", printable(j.from), printable(j.to))
		}
		if f.resume && j.whole() {
			continue // there is nothing to do
		}
		o := o
		j.options(&o)
		errs[i] = imgcopy.Plan(cmd.Context(), j.from, j.to, o, func(s move.Step) {
			if f.json {
				_ = enc.Encode(stepEvent{"step", j.from, j.to, s})
				return
			}
			fmt.Fprintln(out, s)
		})
	}
	return summary(nothingCopied, jobNames(jobs), errs)
}
