// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

func newWho() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "who PATH…",
		Short: "Show who uses a file or block device, and how we know",
		Long: `Tell who uses each file or block device, as what, and on what evidence. It
works inside a view and without any.

EXIT STATUS
  0    at least one is in use
  1    none is in use, or an error
  2    wrong usage
`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			used := false
			for _, path := range args {
				img, err := usesOf(cmd.Context(), path)
				if err != nil {
					return err
				}
				used = used || len(img.Uses) > 0
				if img.Holds, err = holdsOf(cmd.Context(), path); err != nil {
					return err
				}
				if err := printWho(cmd.OutOrStdout(), path, img, asJSON); err != nil {
					return err
				}
			}
			if !used {
				return errQuiet
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func usesOf(ctx context.Context, path string) (img control.Image, err error) {
	view, rel, err := control.Find(path)
	switch {
	case errors.Is(err, control.ErrNoView):
		return usesDirect(ctx, path)
	case errors.Is(err, control.ErrBeside): // who uses it is true all the same: it is that file
		fmt.Fprintf(os.Stderr, "imgward: %v\n", err)
	case err != nil:
		return img, err
	}
	err = control.Dial(view).Get(ctx, "who", url.Values{"path": {rel}}, func(line []byte) error {
		return json.Unmarshal(line, &img)
	})
	return img, err
}

// usesDirect looks for itself, where there is no view to ask.
func usesDirect(ctx context.Context, path string) (control.Image, error) {
	img := control.Image{Type: "image", Path: path}
	host := guard.HostDirect{}
	id, err := host.Lookup(path)
	if err != nil {
		return img, err
	}
	g, err := guard.New(guard.Config{Host: host, Brief: true})
	if err != nil {
		return img, err
	}
	defer g.Close()
	img.Uses = g.Who(ctx, &guard.Request{Image: id, Open: guard.Descriptor(func() (*os.File, error) { return host.Open(path) })})
	return img, nil
}

func printWho(w io.Writer, path string, img control.Image, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(img)
	}
	defer printHolds(w, path, img.Holds)
	if len(img.Uses) == 0 {
		_, err := fmt.Fprintf(w, "%s: not in use\n", path)
		return err
	}
	for _, u := range img.Uses {
		if _, err := fmt.Fprintf(w, "%s: %s\n", path, describeUse(u)); err != nil {
			return err
		}
	}
	return nil
}
