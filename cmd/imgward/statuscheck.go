// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"imgward/cmd/imgward/control"
)

// checkTime is how long a daemon may take to say that it protects; a successor takes over in less.
const checkTime = 10 * time.Second

// checkStatus says for monitoring whether views protect what they are meant to.
func checkStatus(ctx context.Context, w io.Writer, args []string) error {
	views, err := someViews(args)
	if err != nil {
		return errors.Join(errQuiet, failed(w, err.Error()))
	}
	for _, name := range views {
		err = errors.Join(err, checkView(ctx, w, name))
	}
	return err
}

func checkView(ctx context.Context, w io.Writer, name string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	v, err := control.Dial(name).View(ctx)
	switch {
	case err != nil:
		return errors.Join(errQuiet, failed(w, name+" is not protected: "+err.Error()))
	case !v.Protected:
		return errors.Join(errQuiet, failed(w, fmt.Sprintf("%s is not protected: %s", name, v.Unprotected)))
	}
	line := "OK: " + shown(name) + " is protected"
	for _, warning := range v.Warnings {
		line += "; WARNING: " + shown(warning)
	}
	_, err = fmt.Fprintln(w, line)
	return err
}

func failed(w io.Writer, why string) error {
	_, err := fmt.Fprintln(w, "FAILED: "+shown(why))
	return err
}
