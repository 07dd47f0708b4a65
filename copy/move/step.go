// SPDX-License-Identifier: Apache-2.0

package move

import "fmt"

// Method is how an extent gets from source to target.
type Method string

// The ways to move data, best first, and what becomes of holes.
const (
	MethodRename Method = "rename"          // the image was made in its destination's directory: it only gets its name
	MethodClone  Method = "reflink"         // FICLONE: share the blocks
	MethodKernel Method = "copy_file_range" // the kernel, the server or the view copies (and clones, if it can)
	MethodDirect Method = "direct"          // pipelined reads and writes past the page cache on the target
	MethodBuffer Method = "buffered"        // pipelined reads and writes through the page cache
	MethodStream Method = "stream"          // one after the other, to or from a pipe
	MethodHole   Method = "hole"            // left alone: the target reads as zeroes there
	MethodPunch  Method = "punch"           // unmapped
	MethodZero   Method = "zero"            // zeroed by the device or file system without data being sent
	MethodFlat   Method = "flatten"         // put together from the files of an image, shared where they can be
	MethodHeader Method = "header"          // written anew in the end: it names the copies of the other files
	MethodDone   Method = "done"            // copied before, by the run that is being resumed
)

// Step is one extent of the plan.
type Step struct {
	Off    int64  `json:"offset"`
	Len    int64  `json:"length"`
	Method Method `json:"method"`
	Why    string `json:"why,omitempty"` // why not a better one
}

// String is the step as --plan prints it.
func (s Step) String() string {
	line := fmt.Sprintf("%#014x %14d  %s", s.Off, s.Len, s.Method)
	if s.Why != "" {
		line += "  (" + s.Why + ")"
	}
	return line
}
