// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
	"imgward/guard/policy"
)

func newPolicyCheck() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a policy file, and say what it would change on this host",
		Long: `Check a policy file (default: ` + daemon.DefaultPolicy + `), and say where it does
not do what it says, and, image by image, what would change for the views that
are mounted if it were in force now.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := daemon.DefaultPolicy
			if len(args) > 0 {
				file = args[0]
			}
			return checkPolicy(cmd, file, asJSON)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func checkPolicy(cmd *cobra.Command, file string, asJSON bool) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	p, err := policy.Parse(file, text)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	views, err := control.Views()
	if err != nil {
		return fmt.Errorf("the file is valid, but it cannot be compared with what holds: %w", err)
	}
	trapped := printTraps(cmd, file, p.Traps(views), asJSON)
	if !asJSON {
		if len(views) == 0 {
			fmt.Fprintln(out, "no imgward view is mounted, so there is nothing to compare it with")
		}
	}
	failed := []error{trapped}
	for _, v := range views {
		err := comparePolicy(cmd, v, control.PolicyText{Source: file, Text: string(text)}, p, asJSON)
		if control.Dead(err) {
			// What another view lacks does not make the file less valid, nor hide the other views.
			fmt.Fprintf(cmd.ErrOrStderr(), "imgward: %s is left out: no daemon serves it (see imgward status %s)\n", shown(v), shown(v))
			continue
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// printTraps says in which ways a file without a mistake does not do what it says. It fails if there is one.
func printTraps(cmd *cobra.Command, file string, traps []string, asJSON bool) error {
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		for _, trap := range traps {
			if err := json.NewEncoder(out).Encode(control.PolicyTrap{Type: "policy-trap", Message: trap}); err != nil {
				return err
			}
		}
	case len(traps) == 0:
		fmt.Fprintf(out, "%s: valid\n", file)
	default:
		fmt.Fprintf(out, "%s: it has no mistake in it, but does not do what it says:\n", file)
		for _, trap := range traps {
			fmt.Fprintf(out, "  TRAP: %s\n", trap)
		}
	}
	if len(traps) > 0 {
		return errQuiet
	}
	return nil
}

// comparePolicy says what a policy would change for one view.
func comparePolicy(cmd *cobra.Command, view string, text control.PolicyText, p *policy.Policy, asJSON bool) error {
	out := cmd.OutOrStdout()
	if !asJSON {
		fmt.Fprintf(out, "%s:\n", shown(view))
		if err := programChanges(cmd, view, p); err != nil {
			return err
		}
	}
	n := 0
	err := control.Dial(view).Post(cmd.Context(), "policy/check", text, func(line []byte) error {
		n++
		return printChange(cmd, line, asJSON)
	})
	if err == nil && n == 0 && !asJSON {
		fmt.Fprintln(out, "  no image is affected as things are now")
	}
	return err
}

func printChange(cmd *cobra.Command, line []byte, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line)
		return err
	}
	var c struct {
		control.PolicyChange
		Message string `json:"message"` // of an error on the way
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return err
	}
	if c.Type == "error" {
		return fmt.Errorf("%s", c.Message)
	}
	name := shown(c.Path)
	if len(c.Uses) > 0 {
		name += " (" + describeUse(c.Uses[0]) + ")"
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "  %s: %s -> %s\n", name, describeEffect(&c.Before), describeEffect(&c.After))
	return err
}

// describeEffect is "refused (EBUSY): truncate,write; a foreign writer: refuse".
func describeEffect(e *control.Effect) string {
	var parts []string
	if e.Refused != 0 {
		parts = append(parts, fmt.Sprintf("refused (%s): %s", e.Errno, e.Refused))
	}
	if e.Audited != 0 {
		parts = append(parts, fmt.Sprintf("logged only: %s", e.Audited))
	}
	if len(parts) == 0 {
		parts = append(parts, "free")
	}
	if e.Writer == policy.Revoke {
		parts = append(parts, "foreign writers are revoked")
	}
	if e.Message != "" {
		parts = append(parts, "with a message")
	}
	return strings.Join(parts, ", ")
}

// programChanges says which programs would count as something else.
func programChanges(cmd *cobra.Command, view string, next *policy.Policy) error {
	var now control.Policy
	err := control.Dial(view).Get(cmd.Context(), "policy", nil, func(line []byte) error { return json.Unmarshal(line, &now) })
	if err != nil {
		return err
	}
	before, err := policy.Parse(now.Source, []byte(now.Text))
	if err != nil {
		return err
	}
	a, b := &before.Processes, &next.Processes
	for _, l := range []struct {
		what         string
		before, next []string
	}{
		{"a VMM", a.VMMs, b.VMMs}, {"a control group of VMMs", a.VMMCgroups, b.VMMCgroups},
		{"a manager", a.Managers, b.Managers}, {"trusted", a.Trusted, b.Trusted},
		{"a trusted control group", a.TrustedCgroups, b.TrustedCgroups}, {"aligned", a.Aligned, b.Aligned},
	} {
		for _, p := range l.next {
			if !slices.Contains(l.before, p) {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s would be %s\n", shown(p), l.what)
			}
		}
		for _, p := range l.before {
			if !slices.Contains(l.next, p) {
				fmt.Fprintf(cmd.OutOrStdout(), "  %s would no longer be %s\n", shown(p), l.what)
			}
		}
	}
	return nil
}
