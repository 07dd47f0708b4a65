// SPDX-License-Identifier: Apache-2.0

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
	// LastPause is how long requests waited at the last take-over; 0: nobody knows.
	LastPause   float64 `json:"last_pause_seconds,omitempty"`
	Refusals    uint64  `json:"refusals"`
	Nodes       int     `json:"nodes"`
	Handles     int     `json:"handles"`
	Descriptors int64   `json:"descriptors"`
	OpenPassed  int     `json:"open_passthrough"`
	OpenDaemon  int     `json:"open_daemon"`
	// Policy is where the policy in force comes from: a file, or "preset default".
	Policy string `json:"policy"`
	// TreeFD is the worker's descriptor of the backing tree's root.
	TreeFD int `json:"tree_fd"`
	// DeviceFD is its descriptor of the FUSE connection.
	DeviceFD int `json:"device_fd"`
	// Root is the identity of the directory that the view shows.
	Root guard.ID `json:"root"`
	// Reachable: the mountpoint leads to the view. False: it is covered, was moved, or is gone; Warnings say which.
	Reachable bool `json:"reachable"`
	// Protected says that an outsider's truncation of an image in use would be refused now, where no rule by path says
	// otherwise; Unprotected why not.
	Protected   bool   `json:"protected"`
	Unprotected string `json:"unprotected,omitempty"`
	// Warnings are what an operator should know: status files that cannot be parsed, a lost keeper.
	Warnings []string `json:"warnings,omitempty"`
}

// Image is an image in use.
type Image struct {
	Type string      `json:"type"` // "image"
	Path string      `json:"path"` // relative to the view; absolute where there is none
	Uses []guard.Use `json:"uses"`
	// Unprotected says why an outsider's truncation of this image would not be refused now; empty: it would be.
	Unprotected string `json:"unprotected,omitempty"`
	// Beside are the VMMs that have it open without the view: since before the mount, or by another way.
	Beside []int `json:"beside,omitempty"`
	// Block says that it is a block device. Of images that are in no view.
	Block bool `json:"block,omitempty"`
	// Holds are what the second layer protects of it. Of imgward who.
	Holds []HoldLine `json:"holds,omitempty"`
}

// Verdict answers whether an operation would be allowed.
type Verdict struct {
	Type    string   `json:"type"` // "verdict"
	Op      guard.Op `json:"op"`
	Path    string   `json:"path"`
	Allowed bool     `json:"allowed"`
	Reason  string   `json:"reason,omitempty"`
	// Audit says that the policy only watches: it would be logged, with Reason.
	Audit bool `json:"audit,omitempty"`
	// Below is the image that a directory cannot be renamed for, relative to the view.
	Below string `json:"below,omitempty"`
	// Exception is the number of the exception that alone allows it; 0: none does.
	Exception uint64      `json:"exception,omitempty"`
	Uses      []guard.Use `json:"uses,omitempty"`
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

// VMM is a VMM that the policy's lists do not name.
type VMM struct {
	Type    string   `json:"type"` // "vmm"
	PID     int      `json:"pid"`
	Program string   `json:"program"`
	Images  []string `json:"images,omitempty"` // of the view that it has open
}

// Error is an answer that says why there is none.
type Error struct {
	Type    string `json:"type"` // "error"
	Message string `json:"message"`
}
