// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	imgcopy "imgward/copy"
)

const verifyHelp = `Compare an image with its manifest (imgcp --manifest), or two images with each
other. Both are read from the medium, in parallel. Blocks of 64 MiB that differ
are named. A block device may be larger than the image on it.

Without OTHER the manifest is IMAGE.manifest.
`

// verification is the flags of imgcp verify.
type verification struct {
	json     bool
	requests int
}

func newVerifyCommand() *cobra.Command {
	var v verification
	c := &cobra.Command{
		Use:   "verify [OPTIONS] IMAGE [MANIFEST|OTHER]",
		Short: "Compare an image with its manifest, or two images",
		Long:  verifyHelp,
		Example: `  imgcp verify /backup/vm1.img                 against /backup/vm1.img.manifest
  imgcp verify /dev/vg0/vm1 vm1.img.manifest
  imgcp verify vm1.img /mnt/nas/vm1.img`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usageError{errors.New("one image, or an image and what to compare it with; see imgcp verify --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return v.run(cmd, args) },
	}
	c.Flags().BoolVar(&v.json, "json", false, "print the result as a JSON object")
	c.Flags().IntVar(&v.requests, "requests", imgcopy.Defaults().Requests, "keep `N` reads of 1 MiB in flight for each image")
	return c
}

// verifyEvent is the result as --json prints it.
type verifyEvent struct {
	Type        string               `json:"type"` // "verify"
	Image       string               `json:"image"`
	With        string               `json:"with"`
	Same        bool                 `json:"same"`
	Differences []imgcopy.Difference `json:"differences,omitempty"`
	Error       string               `json:"error,omitempty"`
}

func (v *verification) run(cmd *cobra.Command, args []string) error {
	w, err := newWorld(slog.LevelInfo)
	if err != nil {
		return err
	}
	defer w.close()
	o := imgcopy.Defaults()
	o.Users, o.Locks, o.Log, o.Requests = w.users, imageLocks{}, w.log, v.requests
	image, with := args[0], args[0]+".manifest"
	if len(args) == 2 {
		with = args[1]
	}
	if imgcopy.IsManifest(image) && !imgcopy.IsManifest(with) {
		return usageError{fmt.Errorf("%s is a manifest: name the image first, as in imgcp verify %s %s", image, with, image)}
	}
	compare := imgcopy.Compare
	if len(args) == 1 || imgcopy.IsManifest(with) {
		compare = imgcopy.Check
	}
	d, err := compare(cmd.Context(), image, with, o)
	if !v.json {
		return err
	}
	ev := verifyEvent{Type: "verify", Image: image, With: with, Same: err == nil, Differences: d}
	if err != nil {
		ev.Error = err.Error()
	}
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(ev))
}
