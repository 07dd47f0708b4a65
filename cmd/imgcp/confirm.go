// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// confirm shows what a block device holds before it is overwritten, and asks, if there is somebody to answer. A script
// has said what it wants by --overwrite.
func (f *copyFlags) confirm(ctx context.Context, what string) error {
	if !f.quiet || !f.yes {
		fmt.Fprintf(os.Stderr, "imgcp: overwriting %s\n", printable(what))
	}
	if f.yes || !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	fmt.Fprint(os.Stderr, "imgcp: its contents will be lost. Type yes to go on: ")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answer <- line
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case line := <-answer:
		if strings.TrimSpace(line) != "yes" {
			return errors.New("nothing was overwritten: the answer was not yes")
		}
	}
	return nil
}
