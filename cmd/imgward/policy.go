// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
	"imgward/guard/policy"
)

func newPolicy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Show, check and reload the policy",
		Long:  "What is protected when, from what, and who counts as what: imgward-policy(5).\n" + exitHelp,
		Args:  usage(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return usageError{errors.New("policy: show, check or reload?")} },
	}
	c.AddCommand(newPolicyShow(), newPolicyCheck(), newPolicyReload())
	return c
}

func newPolicyShow() *cobra.Command {
	var preset string
	c := &cobra.Command{
		Use:   "show [--preset NAME] [DIR]",
		Short: "Print the policy in force, or a preset, as a file",
		Args:  usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if preset != "" {
				text, err := policy.PresetText(preset)
				if err != nil {
					return usageError{err}
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), text)
				return err
			}
			return inForce(cmd, args)
		},
	}
	c.Flags().StringVar(&preset, "preset", "", "print the preset `NAME`: default, strict or audit")
	return c
}

// inForce prints the policies of views; without any view, what a mount would begin with.
func inForce(cmd *cobra.Command, args []string) error {
	views, err := chosenViews(args)
	if err != nil {
		return err
	}
	for _, v := range views {
		fmt.Fprintf(cmd.OutOrStdout(), "# in force for %s\n", shown(v))
		err := control.Dial(v).Get(cmd.Context(), "policy", nil, func(line []byte) error {
			var p control.Policy
			if err := json.Unmarshal(line, &p); err != nil {
				return err
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), p.Text)
			return err
		})
		if err != nil {
			return err
		}
	}
	if len(views) > 0 {
		return nil
	}
	p, err := policy.Load(daemon.DefaultPolicy)
	if errors.Is(err, os.ErrNotExist) {
		p, err = policy.Default(), nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "# no view is mounted; a view would begin with this")
	return p.Describe(cmd.OutOrStdout())
}

func newPolicyReload() *cobra.Command {
	return &cobra.Command{
		Use:   "reload [DIR]",
		Short: "Have the policy file read again",
		Long: `Have the policy file read again. It is taken over whole; one with a mistake
changes nothing, and the mistake is reported here.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := chosenViews(args)
			if err != nil {
				return err
			}
			if len(views) == 0 {
				return errors.New("no imgward view is mounted")
			}
			var failed error
			for _, v := range views {
				failed = errors.Join(failed, reload(cmd, v))
			}
			return failed
		},
	}
}

func reload(cmd *cobra.Command, view string) error {
	err := control.Dial(view).Post(cmd.Context(), "policy/reload", nil, func(line []byte) error {
		var p control.Policy
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		what := "as before"
		if p.Changed {
			what = "changed"
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s: %s\n", shown(view), shown(p.Source), what)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", view, err)
	}
	return nil
}
