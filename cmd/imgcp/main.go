// SPDX-License-Identifier: Apache-2.0

// Command imgcp copies disk images block for block, and refuses to overwrite one that a virtual machine uses.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// Go's runtime would end the process at a write to a closed pipe on standard output or error, or beyond ulimit -f: with
	// a copy unfinished, and its hidden file left behind where it has one. Caught, they are errors of that write (EPIPE,
	// EFBIG). Children do not inherit it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGXFSZ)
	ctx, stop := withSignals(context.Background())
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// errInterrupted is the cause of a context that a signal ended.
var errInterrupted = errors.New("interrupted")

// sameSignal is how soon after the first a second signal belongs to it: timeout(1) and service managers signal a process
// and then its group.
const sameSignal = 500 * time.Millisecond

// withSignals ends the context at the first SIGINT, SIGTERM or SIGHUP, so that unfinished files are removed. A second
// signal, a moment later, ends the process at once. One that the process was started to ignore, by nohup or in the
// background of a script, stays ignored.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	c := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	go func() {
		if s, ok := <-c; ok {
			cancel(fmt.Errorf("%w by signal: %s", errInterrupted, s))
			time.Sleep(sameSignal)
			signal.Stop(c)
		}
	}()
	return ctx, func() { signal.Stop(c); cancel(nil) }
}
