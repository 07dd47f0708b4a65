// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"

	imgcopy "imgward/copy"
	"imgward/copy/move"
)

// events shows everything as JSON lines.
type events struct{ enc *json.Encoder }

func newEvents(w io.Writer) *events { return &events{json.NewEncoder(w)} }

// progressEvent is the state of the whole run, in bytes.
type progressEvent struct {
	Type    string      `json:"type"` // "progress"
	Image   string      `json:"image,omitempty"`
	Phase   move.Phase  `json:"phase,omitempty"`
	Method  move.Method `json:"method,omitempty"`
	Ended   int         `json:"images_ended"`
	Images  int         `json:"images"`
	Moved   int64       `json:"moved"`
	Data    int64       `json:"data,omitempty"` // absent while unknown
	Holes   int64       `json:"holes"`
	Checked int64       `json:"checked"`
	Rate    int64       `json:"bytes_per_second"`
	Elapsed float64     `json:"elapsed_seconds"`
	Left    *float64    `json:"left_seconds,omitempty"`
}

func (e *events) tick(s snapshot) {
	ev := progressEvent{
		Type: "progress", Phase: s.phase, Method: s.method, Ended: s.ended, Images: s.images,
		Moved: s.moved, Data: s.data, Holes: s.holes, Checked: s.checked,
		Rate: int64(s.rate()), Elapsed: s.elapsed.Seconds(),
	}
	if s.current != nil {
		ev.Image = s.current.from
	}
	if left := s.left(); left >= 0 {
		seconds := left.Seconds()
		ev.Left = &seconds
	}
	e.print(ev)
}

func (e *events) step(j *job, s move.Step) { e.print(stepEvent{"step", j.from, j.to, s}) }

// print is for whoever reads: a reader that has gone does not stop a copy.
func (e *events) print(event any) { _ = e.enc.Encode(event) }

// resultEvent ends one image.
type resultEvent struct {
	Type  string `json:"type"` // "result"
	From  string `json:"source"`
	To    string `json:"destination"`
	Code  int    `json:"code"` // what the exit code would be for this image alone
	Error string `json:"error,omitempty"`
	imgcopy.Result
}

func (e *events) finish(j *job, r imgcopy.Result, err error) {
	ev := resultEvent{Type: "result", From: j.from, To: j.to, Code: exitCode(err), Result: r}
	if err != nil {
		ev.Error = err.Error()
	}
	e.print(ev)
}

func (e *events) end() {}
