// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	imgcopy "imgward/copy"
	"imgward/copy/backing"
	"imgward/copy/checkpoint"
	"imgward/copy/dest"
	"imgward/copy/move"
	"imgward/copy/source"
	"imgward/guard"
)

// chains is a copy of images with all the files that they need (--chain).
type chains struct {
	set   backing.Set
	names map[*backing.File]string // in dir
	dir   string
	close func() // gives up the locks
}

// member is what a job is in a chain.
type member struct {
	*backing.File
	needs  []*job
	header func(io.ReaderAt) ([]byte, error)
}

// chainJobs replaces the jobs by those for every file that their images need, each once. What cannot be copied so is refused
// here, before anything is written. close gives up the locks under which nothing of it changes.
func chainJobs(ctx context.Context, jobs []*job, o *imgcopy.Options) (_ []*job, close func(), err error) {
	dir, err := source.Resolve(filepath.Dir(jobs[0].to))
	if err != nil {
		return nil, nil, err
	}
	c := &chains{dir: dir, close: func() {}}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	given, tops := make(map[*backing.File]string), make(map[*backing.File]*job)
	for _, j := range jobs {
		if j.to == "-" || j.from == "-" {
			return nil, nil, usageError{errors.New("--chain: the files of an image have no place in a pipe")}
		}
		path, err := filepath.Abs(j.from) // names in a header are relative to the name by which it was opened
		if err != nil {
			return nil, nil, err
		}
		f, err := c.set.Add(ctx, guard.HostDirect{}.Open, path, "")
		if err != nil {
			return nil, nil, fmt.Errorf("--chain: %w", err)
		}
		if other := tops[f]; other != nil {
			return nil, nil, usageError{fmt.Errorf("%s and %s are one image", other.from, j.from)}
		}
		given[f], tops[f] = filepath.Base(j.to), j
	}
	c.names = c.set.Names(given)
	all, err := c.jobs(tops)
	if err != nil {
		return nil, nil, err
	}
	err = c.hold(ctx, tops, o)
	return all, c.close, err
}

// jobs makes one for each file, those that others need first.
func (c *chains) jobs(tops map[*backing.File]*job) ([]*job, error) {
	var all []*job
	of := make(map[*backing.File]*job)
	for i := len(c.set.Files) - 1; i >= 0; i-- {
		f := c.set.Files[i]
		j := tops[f]
		if j == nil {
			j = newJob(f.Path, filepath.Join(c.dir, c.names[f]))
		}
		if i := slices.IndexFunc(c.set.Files, func(f *backing.File) bool { return same(f.Path, j.to) }); i >= 0 {
			return nil, fmt.Errorf("--chain: the copy of %s would overwrite %s, which is one of the files to be copied: choose another directory", j.from, j.to)
		}
		of[f] = j
		m := &member{File: f}
		for _, needed := range []*backing.File{f.Backing, f.Data} {
			if needed != nil {
				m.needs = append(m.needs, of[needed])
			}
		}
		if f.Needs() {
			m.header = func(r io.ReaderAt) ([]byte, error) {
				return f.Rewrite(r, c.dir, c.names)
			}
		}
		j.chain = m
		all = append(all, j)
	}
	return all, nil
}

// hold keeps every file as it is until all are copied: a base that changed between its copy and its overlay's would ruin both.
// What a domain writes to is refused, but for the image itself where --live says how it becomes consistent.
func (c *chains) hold(ctx context.Context, tops map[*backing.File]*job, o *imgcopy.Options) error {
	var images, others []string
	for _, f := range c.set.Files {
		switch {
		case tops[f] == nil:
			others = append(others, f.Path)
		case o.Live == nil:
			images = append(images, f.Path)
		}
	}
	first, _, err := source.Hold(ctx, images, "", &o.Options.Options)
	if err != nil {
		return err
	}
	c.close = first
	second, _, err := source.Hold(ctx, others, source.NeededHint, &o.Options.Options)
	if err == nil {
		c.close = func() { first(); second() }
	}
	return err
}

func same(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && dest.SameInode(&x, &y)
}

// options are the engine's for one file of a chain.
func (m *member) options(o *imgcopy.Options) {
	if m == nil {
		return
	}
	o.Header, o.Alone = m.header, true
	if m.Depth > 0 {
		o.Live = nil
	}
}

// ready waits until what the file needs has been copied.
func (m *member) ready(ctx context.Context) error {
	if m == nil {
		return nil
	}
	for _, needed := range m.needs {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-needed.ended:
		}
		if needed.failed {
			return fmt.Errorf("not copied, because it needs %s, which could not be copied", needed.from)
		}
	}
	return nil
}

// whole reports whether an earlier run copied this file of a chain.
func (j *job) whole() bool { return j.chain != nil && checkpoint.Whole(j.from, j.to) }

// nothingCopied is the summary where it was only asked.
const nothingCopied = "nothing was copied: %d of %d images cannot be"

// refused makes sure that every file of a chain may be copied, before the first one is.
func (f *copyFlags) refused(ctx context.Context, jobs []*job, o imgcopy.Options) error {
	errs := make([]error, len(jobs))
	for i, j := range jobs {
		if f.resume && j.whole() {
			continue
		}
		o, none := o, func(move.Step) {}
		j.options(&o)
		o.Progress = new(move.Progress)
		errs[i] = imgcopy.Plan(ctx, j.from, j.to, o, none)
	}
	return summary(nothingCopied, jobNames(jobs), errs)
}
