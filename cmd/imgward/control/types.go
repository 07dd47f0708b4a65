// Package control is how commands talk to a view's daemon: HTTP and JSON over a Unix socket (docs/control.md), so that
// curl --unix-socket can, too. Answers are one JSON object per line, each with a "type"; readers skip fields and types
// that they do not know.
package control

import (
	"time"

	"imgward/guard"
)

// View describes a view and its daemon.
type View struct {
	Type        string    `json:"type"` // "view"
	Mountpoint  string    `json:"mountpoint"`
	Backing     string    `json:"backing"`
	PID         int       `json:"pid"` // of the worker
	KeeperPID   int       `json:"keeper_pid"`
	Version     string    `json:"version"`
	Passthrough bool      `json:"passthrough"`
	Generation  uint64    `json:"generation"`
	Takeovers   uint64    `json:"takeovers"`
	Mounted     time.Time `json:"mounted"`
	Serving     time.Time `json:"serving"`
	LastPause   float64   `json:"last_pause_seconds"`
	Refusals    uint64    `json:"refusals"`
	Nodes       int       `json:"nodes"`
	Handles     int       `json:"handles"`
	Descriptors int64     `json:"descriptors"`
	OpenPassed  int       `json:"open_passthrough"`
	OpenDaemon  int       `json:"open_daemon"`
	// Policy is where the policy in force comes from: a file, or "preset default".
	Policy string `json:"policy"`
	// Warnings are what an operator should know: status files that cannot be parsed, a lost keeper.
	Warnings []string `json:"warnings,omitempty"`
}

// Image is an image in use.
type Image struct {
	Type string      `json:"type"` // "image"
	Path string      `json:"path"` // relative to the view; absolute where there is none
	Uses []guard.Use `json:"uses"`
}

// Verdict answers whether an operation would be allowed.
type Verdict struct {
	Type    string      `json:"type"` // "verdict"
	Op      guard.Op    `json:"op"`
	Path    string      `json:"path"`
	Allowed bool        `json:"allowed"`
	Reason  string      `json:"reason,omitempty"`
	Uses    []guard.Use `json:"uses,omitempty"`
}

// Holder is a process that has files of a view open.
type Holder struct {
	Type  string      `json:"type"` // "holder"
	PID   int         `json:"pid"`
	Comm  string      `json:"comm"`
	Class guard.Class `json:"class"`
	Path  string      `json:"path"`
	Write bool        `json:"write"`
}

// Error is an answer that says why there is none.
type Error struct {
	Type    string `json:"type"` // "error"
	Message string `json:"message"`
}
