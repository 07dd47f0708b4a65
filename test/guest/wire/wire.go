// SPDX-License-Identifier: Apache-2.0

// Package wire is what host and guest agent say to each other over a virtio-serial port: one JSON object per line, each
// request answered by one reply with the same ID.
package wire

import "imgward/test/guest/block"

// Port is the name of the virtio-serial port.
const Port = "imgward.agent"

// Op is a request to the agent.
type Op string

// The requests; Request says which fields each one reads.
const (
	OpPing     Op = "ping"
	OpDisks    Op = "disks"    // the disks that the guest sees
	OpFill     Op = "fill"     // write Blocks blocks from First on, then fsync
	OpStart    Op = "start"    // write at random among Blocks blocks from First on, with an fsync every few, until stopped
	OpStop     Op = "stop"     // stop writing; the reply has Progress
	OpProgress Op = "progress" // how far the writer is
	OpVerify   Op = "verify"   // read all that was written, past every cache, and check it
	OpAccount  Op = "account"  // the writer's account, for a check on the host
	OpDiscard  Op = "discard"  // discard Blocks blocks from First on
	OpSum      Op = "sum"      // SHA-256 of Blocks blocks from First on
	OpErrors   Op = "errors"   // lines of the kernel's log that speak of I/O errors
	OpPowerOff Op = "poweroff" // orderly: sync, then off; there is no reply
)

// Request is one request.
type Request struct {
	ID     uint64 `json:"id"`
	Op     Op     `json:"op"`
	Disk   string `json:"disk,omitempty"`  // serial number, which the domain XML sets to the disk target
	First  uint64 `json:"first,omitempty"` // in blocks
	Blocks uint64 `json:"blocks,omitempty"`
}

// Reply answers one request. Error is empty if it succeeded.
type Reply struct {
	ID       uint64         `json:"id"`
	Error    string         `json:"error,omitempty"`
	Disks    []Disk         `json:"disks,omitempty"`
	Progress *Progress      `json:"progress,omitempty"`
	Account  *block.Account `json:"account,omitempty"`
	Sum      string         `json:"sum,omitempty"`
	Lines    []string       `json:"lines,omitempty"`
}

// Disk is a disk as the guest sees it.
type Disk struct {
	Name     string `json:"name"` // the kernel's: vda, sr0
	Serial   string `json:"serial"`
	Bytes    int64  `json:"bytes"`
	ReadOnly bool   `json:"ro"`
}

// Progress is how far a writer is, and how its disk behaved.
type Progress struct {
	Writes  uint64 `json:"writes"`
	Fsyncs  uint64 `json:"fsyncs"`
	Error   string `json:"error,omitempty"` // what stopped the writer
	WorstMS int64  `json:"worst_ms"`        // the longest that one write or fsync took
}
