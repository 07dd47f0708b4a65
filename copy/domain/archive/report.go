// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
)

// Condition is how a copy of a domain stands, or one of its files.
type Condition string

// The conditions, best first. Of a domain the worst of its files' counts.
const (
	IsVerified Condition = "verified" // whole, and compared with its source or with its digests since
	IsWhole    Condition = "whole"
	IsPending  Condition = "pending"
	IsFailed   Condition = "failed"
)

var order = map[Condition]int{IsVerified: 0, IsWhole: 1, IsPending: 2, IsFailed: 3}

// Report is how the copy of one domain stands.
type Report struct {
	Dir       string     `json:"dir"`
	Domain    string     `json:"domain"`
	Condition Condition  `json:"condition"`
	Error     string     `json:"error,omitempty"`
	Manifest  *Manifest  `json:"manifest,omitempty"`
	Files     int        `json:"files"`
	Whole     int        `json:"whole"` // of them
	Bytes     int64      `json:"bytes"` // of the whole ones
	Problems  []Problem  `json:"problems,omitempty"`
	Missing   []Omission `json:"missing,omitempty"` // what the domain has and the copy was not meant to have
}

// Problem is a file that is not there, or not what was copied.
type Problem struct {
	Path      string    `json:"path"`
	Condition Condition `json:"condition"`
	Why       string    `json:"why,omitempty"`
}

// Digest is the digest and size of a file, read from the medium.
type Digest func(ctx context.Context, path string) (sum string, size int64, err error)

// Examine looks at the copy in dir: whether each file that the manifest calls whole is there with its size, and, if digest is not
// nil, with its digest. A copy that cannot be read is a report as well. An error is the end of ctx.
func Examine(ctx context.Context, dir string, digest Digest) (Report, error) {
	r := Report{Dir: dir, Condition: IsFailed}
	a, err := Open(dir)
	if err != nil {
		r.Error = err.Error()
		return r, nil
	}
	defer a.Close()
	m := a.Manifest()
	r.Domain, r.Manifest, r.Error, r.Missing = m.Domain, &m, m.Error, m.Omitted
	r.Condition = IsVerified
	switch {
	case m.Error != "":
		r.Condition = IsFailed
	case m.Finished.IsZero():
		r.Condition = IsPending
	}
	for i := range m.Files {
		f := &m.Files[i]
		c, why := a.examine(ctx, f, digest)
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		r.Files++
		if order[c] <= order[IsWhole] {
			r.Whole++
			r.Bytes += f.Size
		} else {
			r.Problems = append(r.Problems, Problem{f.Path, c, why})
		}
		if order[c] > order[r.Condition] {
			r.Condition = c
		}
	}
	return r, nil
}

func (a *Archive) examine(ctx context.Context, f *File, digest Digest) (Condition, string) {
	switch f.State {
	case Pending:
		return IsPending, ""
	case Failed:
		return IsFailed, f.Error
	}
	h, err := a.Open(f.Path)
	if err != nil {
		return IsFailed, err.Error()
	}
	defer h.Close()
	st, err := h.Stat()
	if err == nil && st.Size() != f.Size {
		err = fmt.Errorf("it has %d bytes, and %d were copied", st.Size(), f.Size)
	}
	if err == nil && digest != nil {
		var sum string
		if sum, _, err = digest(ctx, a.Path(f.Path)); err == nil && sum != f.BLAKE3 {
			err = errors.New("it is not what was copied: its BLAKE3 digest is another one")
		}
	}
	switch {
	case err != nil:
		return IsFailed, err.Error()
	case digest != nil || f.State == Verified || f.Kind == XML || f.Kind == Snapshot || f.Kind == Checkpoint || f.Kind == Network || f.Kind == Pool:
		return IsVerified, "" // libvirt's words were written as they came
	}
	return IsWhole, ""
}
