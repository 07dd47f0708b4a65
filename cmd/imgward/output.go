// SPDX-License-Identifier: Apache-2.0

package main

import "io"

// output remembers the first error of writing to standard output: a command that could not say all has failed, whatever it
// did with that error.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if o.err == nil {
		o.err = err
	}
	return n, err
}
