// SPDX-License-Identifier: Apache-2.0

// Package output is standard output for commands whose output is their result.
package output

import "io"

// Checked remembers the first error of writing: a command that could not say all has failed, whatever it did with that error.
type Checked struct {
	io.Writer
	Err error
}

// Write implements io.Writer.
func (c *Checked) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	if c.Err == nil {
		c.Err = err
	}
	return n, err
}
