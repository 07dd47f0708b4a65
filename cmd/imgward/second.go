// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"imgward/cmd/imgward/control"
	"imgward/guard"
	"imgward/guard/lsm"
	"imgward/guard/second"
)

// isDevice says whether a path leads to a block device.
func isDevice(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
}

// chosenDaemons is what an argument is about: the view that it is in, or the second layer if it is a block device. Without one,
// all views and the second layer, if it runs.
func chosenDaemons(args []string) ([]string, error) {
	if len(args) > 0 && isDevice(args[0]) {
		if err := guardRuns(args[0]); err != nil {
			return nil, err
		}
		return []string{control.SecondName}, nil
	}
	list, err := chosenViews(args)
	if err == nil && len(args) == 0 && control.SecondRuns() {
		list = append(list, control.SecondName)
	}
	return list, err
}

// oneDaemon is chosenDaemons for what one of them has to answer: the views come first.
func oneDaemon(args []string) ([]string, error) {
	list, err := chosenDaemons(args)
	if n := len(list); err == nil && n > 1 && list[n-1] == control.SecondName {
		list = list[:n-1]
	}
	return list, err
}

func guardRuns(device string) error {
	if control.SecondRuns() {
		return nil
	}
	return fmt.Errorf("%s is a block device, which the guard protects, and that does not run (imgward guard)", device)
}

// holdsOf asks what the second layer holds of an image; nothing where it does not run.
func holdsOf(ctx context.Context, path string) (list []control.HoldLine, err error) {
	if !control.SecondRuns() {
		return nil, nil
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	err = control.Dial(control.SecondName).Get(ctx, "holds", url.Values{"path": {path}}, func(line []byte) error {
		var h control.HoldLine
		err := json.Unmarshal(line, &h)
		list = append(list, h)
		return err
	})
	return list, err
}

// printHolds says in which way the second layer keeps others from a device, and how it is made to let go.
func printHolds(w io.Writer, path string, list []control.HoldLine) {
	for _, h := range list {
		if h.Left != "" {
			fmt.Fprintf(w, "%s: not claimed: %s\n", path, shown(h.Left))
			continue
		}
		if h.Layer == lsm.Name {
			fmt.Fprintf(w, "%s: protected by the kernel%s, which refuses whoever would destroy it, whatever way leads to it\n", path, forWhom(h.Uses))
			continue
		}
		device := ""
		if h.Path != path {
			device = " on " + h.Path
		}
		fmt.Fprintf(w, "%s: held by a claim of imgward guard%s%s: mkfs, wipefs, mkswap, pvcreate, lvremove and mount get EBUSY until that ends, "+
			"or until imgward allow --op write --for 5m --reason %s %s\n", path, device, forWhom(h.Uses), guard.ReasonPlaceholder, h.Path)
	}
}

func forWhom(uses []guard.Use) string {
	if len(uses) == 0 {
		return ""
	}
	return " for " + describeUse(uses[0])
}

func printGuard(w io.Writer, g *control.Second) {
	fmt.Fprintf(w, "guard: protects since %s, policy: %s\n  daemon pid %d (keeper %d), generation %d, %d images declared in %.1f ms\n",
		g.Since.Format(time.DateTime), g.Policy, g.PID, g.KeeperPID, g.Generation, g.Images, g.Declared*1000)
	for _, warning := range g.Warnings {
		fmt.Fprintf(w, "  WARNING: %s\n", shown(warning))
	}
}

// showOrphan says what is left of the second layer when its processes were killed: the kernel goes on, the claims are gone.
func showOrphan(w io.Writer, asJSON bool) error {
	if control.SecondRuns() || !lsm.Loaded(lsm.DefaultDir) {
		return nil
	}
	const reason = "no process of imgward's is left: the kernel goes on refusing by what it knows, and nobody explains it or adds to it; " +
		"imgward guard goes on with it, imgward guard stop takes it away"
	if asJSON {
		return json.NewEncoder(w).Encode(control.LayerLine{Type: "layer", Status: second.Status{Layer: lsm.Name, Active: true, Reason: reason}})
	}
	_, err := fmt.Fprintf(w, "\nguard: DOES NOT RUN\n  claims: OFF: they went with the guard's processes\n  lsm: on, but %s\n", reason)
	return err
}

func printLayer(w io.Writer, l *control.LayerLine) {
	switch {
	case l.Active && l.Reason != "":
		fmt.Fprintf(w, "  %s: on, but %s\n", l.Layer, shown(l.Reason))
		return
	case l.Active && l.Strict:
		fmt.Fprintf(w, "  %s: on, strict: it judges each write\n", l.Layer)
		return
	case l.Active:
		fmt.Fprintf(w, "  %s: on\n", l.Layer)
		return
	}
	fmt.Fprintf(w, "  %s: OFF: %s\n", l.Layer, shown(l.Reason))
}

func printHold(w io.Writer, h *control.HoldLine) {
	name := shown(h.Path)
	for _, u := range h.Uses {
		fmt.Fprintf(w, "  %-28s %s", name, describeUse(u))
		if name != "" && h.Left != "" {
			fmt.Fprintf(w, "  NOT CLAIMED: %s", shown(h.Left))
		}
		fmt.Fprintln(w)
		name = ""
	}
}
