// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/top"
	"imgward/guard"
)

func newTop() *cobra.Command {
	var every time.Duration
	c := &cobra.Command{
		Use:   "top [DIR]",
		Short: "Watch a view: images, holders, refusals as they happen",
		Long: `Watch a view. Keys: q quits, p pauses, r shows refusals only, j and k scroll,
space draws now. READ/s and WRITE/s are the VMM's, over all its disks.
` + exitHelp,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			views, err := someViews(args)
			if err != nil {
				return err
			}
			if len(views) != 1 {
				return usageError{fmt.Errorf("top watches one view: which of %v?", views)}
			}
			w := &watch{client: control.Dial(views[0]), every: every}
			return w.run(cmd.Context())
		},
	}
	c.Flags().DurationVarP(&every, "delay", "d", 2*time.Second, "time between two screens")
	return c
}

// watch is one run of top.
type watch struct {
	client *control.Client
	every  time.Duration
	state  top.State
	rates  top.Rates
}

// keepRefusals is how many are remembered: more than any screen shows.
const keepRefusals = 500

func (w *watch) run(ctx context.Context) error {
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	if !term.IsTerminal(in) || !term.IsTerminal(out) {
		return usageError{errors.New("top needs a terminal; scripts use imgward status --json")}
	}
	if w.every < 100*time.Millisecond {
		return usageError{errors.New("top: -d 100ms at least")}
	}
	before, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	fmt.Print("\x1b[?1049h\x1b[?25l") // the alternate screen, no cursor
	defer func() {
		fmt.Print("\x1b[?25h\x1b[?1049l")
		_ = term.Restore(in, before)
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, refusals := make(chan byte), make(chan string)
	go readKeys(keys)
	go w.follow(ctx, refusals)
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	w.refresh(ctx)
	for {
		w.draw(out)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !w.state.Paused {
				w.refresh(ctx)
			}
		case line := <-refusals:
			w.state.Refusals = append(w.state.Refusals, line)
			w.state.Refusals = w.state.Refusals[max(0, len(w.state.Refusals)-keepRefusals):]
		case k := <-keys:
			if !w.key(ctx, k) {
				return nil
			}
		}
	}
}

// key does what a key asks for; false: quit.
func (w *watch) key(ctx context.Context, k byte) bool {
	switch k {
	case 'q', 3, 4: // ^C, ^D
		return false
	case 'p':
		w.state.Paused = !w.state.Paused
	case 'r':
		w.state.Only = !w.state.Only
	case 'j':
		w.state.Scroll = min(w.state.Scroll+1, max(0, len(w.state.Images)-1))
	case 'k':
		w.state.Scroll = max(0, w.state.Scroll-1)
	case ' ':
		w.refresh(ctx)
	}
	return true
}

func readKeys(keys chan<- byte) {
	in := bufio.NewReader(os.Stdin)
	for {
		k, err := in.ReadByte()
		if err != nil {
			k = 'q'
		}
		keys <- k
		if err != nil {
			return
		}
	}
}

// follow passes on refusals. If that fails, or the view ends, it is tried again: another may come in its place.
func (w *watch) follow(ctx context.Context, refusals chan<- string) {
	for ctx.Err() == nil {
		_ = w.client.Follow(ctx, func(line []byte) error {
			var e guard.Event
			if err := json.Unmarshal(line, &e); err != nil || e.Type != guard.EventRefusal {
				return err
			}
			select {
			case refusals <- e.Time.Local().Format(time.TimeOnly) + " " + describeBriefly(&e):
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		select {
		case <-time.After(w.every):
		case <-ctx.Done():
		}
	}
}

// refresh asks the daemon. What it does not answer stays as it was.
func (w *watch) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var view control.View
	var images []control.Image
	err := w.client.Get(ctx, "status", nil, func(line []byte) error {
		var img control.Image
		if err := json.Unmarshal(line, &img); err != nil {
			return err
		}
		switch img.Type {
		case "view":
			return json.Unmarshal(line, &view)
		case "image":
			images = append(images, img)
		}
		return nil
	})
	w.state.Fault = ""
	if err != nil {
		w.state.Fault = shown(err.Error())
		return
	}
	for i, warning := range view.Warnings {
		view.Warnings[i] = shown(warning)
	}
	w.state.Now, w.state.View = time.Now(), view
	w.state.Images = w.rows(images)
}

// rows are the images that VMs have as their own; what is below them in a chain is a number.
func (w *watch) rows(images []control.Image) []top.Row {
	below := map[string]int{}
	for _, img := range images {
		for _, u := range img.Uses {
			if u.Role == guard.RoleBacking || u.Role == guard.RoleDataFile {
				below[u.Domain+"\x00"+u.Target]++
			}
		}
	}
	var rows []top.Row
	for _, img := range images {
		u := img.Uses[0]
		if u.Role == guard.RoleBacking || u.Role == guard.RoleDataFile {
			continue
		}
		r := top.Row{
			Domain: shown(u.Domain), Target: u.Target, Path: shown(img.Path), VMM: u.PID, Evidence: string(u.Evidence),
			Writable: u.Writable, Below: below[u.Domain+"\x00"+u.Target],
		}
		r.Read, r.Write = w.rates.Of(u.PID, w.state.Now)
		rows = append(rows, r)
	}
	return rows
}

func (w *watch) draw(out int) {
	width, height, err := term.GetSize(out)
	if err != nil {
		width, height = 80, 24
	}
	lines := w.state.Draw(width, height)
	fmt.Print("\x1b[H" + strings.Join(lines, "\x1b[K\r\n") + "\x1b[J")
}
