package main

import (
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/doctor"
)

func newDoctor() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check the host for what leaves images unprotected",
		Long: `Check the kernel, the policy, the views, what running VMs use, other ways to the
same files, NFS exports, AppArmor and SELinux; say what to do about each.

EXIT STATUS
  0    no problem was found
  1    something leaves images unprotected, or an error
  2    wrong usage
`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h := &doctor.Host{Policy: defaultPolicy, Log: slog.New(slog.DiscardHandler)}
			views, err := control.Views()
			if err != nil {
				return err
			}
			for _, m := range views {
				v, err := control.Dial(m).View(cmd.Context())
				if control.Dead(err) {
					h.Dead = append(h.Dead, m)
					continue
				}
				if err != nil {
					return err
				}
				h.Views = append(h.Views, doctor.View{
					Mountpoint: v.Mountpoint, Backing: v.Backing, Passthrough: v.Passthrough, Warnings: v.Warnings,
				})
			}
			return printFindings(cmd, h.Examine(cmd.Context()), asJSON, all)
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&all, "all", "a", false, "also say what is in order")
	return c
}

func printFindings(cmd *cobra.Command, list []doctor.Finding, asJSON, all bool) error {
	out := cmd.OutOrStdout()
	problems := 0
	for _, f := range list {
		if f.Level == doctor.Problem {
			problems++
		}
		if asJSON {
			if err := json.NewEncoder(out).Encode(f); err != nil {
				return err
			}
			continue
		}
		if f.Level == doctor.OK && !all {
			continue
		}
		fmt.Fprintf(out, "%-8s %s: %s\n", f.Level, f.Check, shown(f.What))
		if f.Do != "" {
			fmt.Fprintf(out, "         -> %s\n", shown(f.Do))
		}
	}
	switch {
	case problems > 0:
		return errQuiet
	case !asJSON:
		fmt.Fprintf(out, "%d checks, no problem\n", len(list))
	}
	return nil
}
