// SPDX-License-Identifier: Apache-2.0

package imgcopy

// OptionError says that this copy cannot do what an option asks for.
type OptionError struct{ Option, Why string }

// Error names the option as it is typed.
func (e *OptionError) Error() string { return e.Option + ": " + e.Why }

// streamRule says whether an option holds where one end of a copy is a pipe, which is read or written once and in order.
type streamRule struct {
	option   string
	asked    func(*Options) bool
	from, to string // why it does not hold, from a pipe and to one; "" if it does
}

// streamRules is every option that promises something about the copy. What does not hold is refused: left out in silence, it
// would be believed. docs/imgcp.md has it as a table.
var streamRules = []streamRule{
	{"--verify", func(o *Options) bool { return o.Verify }, "", "what went into a pipe cannot be read back"},
	{"--manifest", func(o *Options) bool { return o.Manifest != "" }, "", ""},
	{"--rate-limit", func(o *Options) bool { return o.Limit != nil }, "", ""},
	{"--sparse=never", func(o *Options) bool { return o.KeepZeroes }, "", ""},
	{"--direct=always", func(o *Options) bool { return o.Direct == Always }, "", "a pipe has no page cache to bypass"},
	{"--live", func(o *Options) bool { return o.Live != nil }, "a pipe is no domain's disk; give this option to the imgcp that reads the disk", ""},
	{"--chain", func(o *Options) bool { return o.Header != nil }, "a pipe has no directory in which the other files are", "a pipe has no directory for the other files"},
	{"--flat", func(o *Options) bool { return o.Flat }, "an image that needs other files cannot come through a pipe", "the image is put together in a file: make that first, then send it"},
	{"--resume", func(o *Options) bool { return o.Resume }, "a pipe cannot be read from the middle", "what went into a pipe is gone"},
	{"--reflink=always", func(o *Options) bool { return o.Reflink == Always }, "a pipe has no blocks to share", "a pipe has no blocks to share"},
	{"--on-error", func(o *Options) bool { return o.OnError != Stop }, "a pipe has no unreadable parts", "a pipe takes nothing twice, so no part can be tried again"},
	{"--preallocate", func(o *Options) bool { return o.Preallocate }, "the size is not known before the end", "a pipe has no blocks to reserve"},
	{"--preserve", func(o *Options) bool { return o.Preserve }, "a pipe has no owner, times or attributes to copy", "a pipe keeps no owner, times or attributes"},
}

// checkStream refuses what does not hold from a pipe, or to one.
func checkStream(o *Options, from, to bool) error {
	for _, r := range streamRules {
		if !r.asked(o) {
			continue
		}
		for _, end := range []struct {
			is  bool
			why string
		}{{from, r.from}, {to, r.to}} {
			if end.is && end.why != "" {
				return &OptionError{r.option, end.why}
			}
		}
	}
	return nil
}
