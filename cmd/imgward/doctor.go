// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/daemon"
	"imgward/cmd/imgward/doctor"
	"imgward/guard"
	"imgward/guard/policy"
)

func newDoctor() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Find what leaves images unprotected, and what to do",
		Long: `Check what may leave images unprotected on this host, and say what to do about
it: the kernel, the policy, the views, what running VMs use, VM processes that
no list of the policy names, other ways to the same files, NFS exports,
backups that leave a view out, AppArmor and SELinux.

EXIT STATUS
  0    no problem was found
  1    something leaves images unprotected, or an error
  2    wrong usage
`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := askViews(cmd.Context())
			if err != nil {
				return err
			}
			return printFindings(cmd, h.Examine(cmd.Context()), asJSON, all)
		},
	}
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&all, "all", "a", false, "also say what is in order")
	return c
}

// askViews asks the daemons of the views for what they know. Without any, it looks for itself.
func askViews(ctx context.Context) (*doctor.Host, error) {
	h := &doctor.Host{Policy: daemon.DefaultPolicy}
	views, err := control.Views()
	if err != nil {
		return nil, err
	}
	elsewhere := map[string]control.Image{}
	for _, m := range views {
		v, err := askView(ctx, m, elsewhere)
		if control.Dead(err) {
			h.Dead = append(h.Dead, m)
			continue
		}
		if err != nil {
			return nil, err
		}
		h.Views = append(h.Views, *v)
	}
	for _, img := range elsewhere {
		if !inOther(len(h.Views), &img) {
			h.Elsewhere = append(h.Elsewhere, img)
		}
	}
	if h.Second, err = askSecond(ctx); err != nil {
		return nil, err
	}
	if len(h.Views) == 0 {
		h.Elsewhere, err = lookDirect(ctx)
	}
	return h, err
}

// askSecond asks the second layer's daemon; nil where it does not run.
func askSecond(ctx context.Context) (*doctor.Second, error) {
	if !control.SecondRuns() {
		return nil, nil
	}
	s := &doctor.Second{}
	err := control.Dial(control.SecondName).Get(ctx, "status", nil, func(line []byte) error {
		var l control.LayerLine
		var h control.HoldLine
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		switch l.Type {
		case "layer":
			s.Layers = append(s.Layers, l)
		case "hold":
			err := json.Unmarshal(line, &h)
			s.Holds = append(s.Holds, h)
			return err
		}
		return nil
	})
	return s, err
}

// askView asks one daemon; what it knows to be in use outside of its view goes to elsewhere, by path.
func askView(ctx context.Context, mountpoint string, elsewhere map[string]control.Image) (*doctor.View, error) {
	v, client := &doctor.View{}, control.Dial(mountpoint)
	each := func(line []byte) error {
		var img control.Image
		if err := json.Unmarshal(line, &img); err != nil {
			return err
		}
		switch img.Type {
		case "view":
			return json.Unmarshal(line, &v.View)
		case "image":
			v.Images = append(v.Images, img)
		case "elsewhere":
			elsewhere[img.Path] = img
		case "vmm":
			var vmm control.VMM
			if err := json.Unmarshal(line, &vmm); err != nil {
				return err
			}
			v.Unlisted = append(v.Unlisted, vmm)
		}
		return nil
	}
	for _, question := range []string{"status", "elsewhere", "vmms"} {
		if err := client.Get(ctx, question, nil, each); err != nil {
			return nil, err
		}
	}
	err := client.Get(ctx, "policy", nil, func(line []byte) (err error) {
		var p control.Policy
		if err := json.Unmarshal(line, &p); err != nil {
			return err
		}
		v.Policy, err = policy.Parse(p.Source, []byte(p.Text))
		return err
	})
	return v, err
}

// inOther says whether what one view knows to be elsewhere is in another, which speaks for itself. With one view it is not,
// and a path that does not answer is not looked at.
func inOther(views int, img *control.Image) bool {
	if views < 2 || img.Uses[0].Pending {
		return false
	}
	_, _, err := control.Find(img.Path)
	return err == nil
}

// lookDirect finds what is in use, where there is no view to ask.
func lookDirect(ctx context.Context) ([]control.Image, error) {
	g, err := guard.New(guard.Config{Brief: true})
	if err != nil {
		return nil, err
	}
	defer g.Close()
	var list []control.Image
	for id, uses := range g.InUse(ctx) {
		list = append(list, control.Image{Type: "elsewhere", Path: uses[0].Path, Uses: uses, Block: id.Dev == guard.BlockDevice})
	}
	return list, nil
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
