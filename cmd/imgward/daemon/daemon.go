// SPDX-License-Identifier: Apache-2.0

// Package daemon is what serves a view: a worker, which may die at any moment, and a keeper, which starts the next. The
// commands of package main only call it; they reach a daemon that runs through the control socket.
package daemon

import "errors"

// ErrSaid ends a process that has said why, or has nothing to say: a worker makes room for its successor.
var ErrSaid = errors.New("said already")

// ErrNoView says that a service has nothing to serve.
var ErrNoView = errors.New("there is no view to serve")

// UsageError is a mistake in the mount options.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e UsageError) Unwrap() error { return e.Err }
