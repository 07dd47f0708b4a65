// SPDX-License-Identifier: Apache-2.0

package guard

import "time"

// EventType names a kind of event.
type EventType string

// The kinds of event. Others may be added; readers skip what they do not know.
const (
	EventRefusal       EventType = "refusal"        // an operation was refused, or would have been (Audit)
	EventException     EventType = "exception"      // an exception was granted
	EventExceptionUsed EventType = "exception-used" // an exception let an operation through
	EventExceptionGone EventType = "exception-gone" // an exception was used up, revoked, or ran out
	EventPolicy        EventType = "policy"         // another policy is in force
	EventDomain        EventType = "domain"         // a domain started, stopped, or its images changed
	EventUnreadable    EventType = "unreadable"     // a status file cannot be read (any more)
	EventTakeover      EventType = "take-over"      // a new worker serves the view
	EventBegin         EventType = "view-begin"     // the view was mounted
	EventEnd           EventType = "view-end"       // it has ended
	EventGuardBegin    EventType = "guard-begin"    // the second layer protects
	EventGuardEnd      EventType = "guard-end"      // it does no more
)

// Event is one entry of the event stream, as `imgward events --json` prints it. Fields that do not apply are left out.
type Event struct {
	Type EventType `json:"type"`
	// ID counts the events of a view without gaps, from one worker to the next, from Config.FirstID on.
	ID   uint64    `json:"id"`
	View string    `json:"view,omitempty"` // its mountpoint
	Time time.Time `json:"time"`
	Op   Op        `json:"op,omitempty"`
	Path string    `json:"path,omitempty"` // relative to the view
	PID  int       `json:"pid,omitempty"`
	Comm string    `json:"comm,omitempty"`
	Exe  string    `json:"exe,omitempty"`
	UID  *uint32   `json:"uid,omitempty"`
	// LoginUID is whose session it is: after sudo all are uid 0. Nil: none is set.
	LoginUID *uint32 `json:"login_uid,omitempty"`
	Class    Class   `json:"class,omitempty"`
	Domain   string  `json:"domain,omitempty"`
	UUID     string  `json:"uuid,omitempty"`
	Target   string  `json:"target,omitempty"`
	VMM      int     `json:"vmm_pid,omitempty"` // the VMM that uses the image
	Errno    string  `json:"errno,omitempty"`   // "EBUSY"
	Reason   string  `json:"reason,omitempty"`
	// Message is a refusal in the words that the caller's terminal got.
	Message string `json:"message,omitempty"`
	// Audit: it went through, since the policy only watches.
	Audit bool `json:"audit,omitempty"`
	// Suppressed counts the refusals of the same process, image and operation that no event was made of since the last.
	Suppressed uint64 `json:"suppressed,omitempty"`
	// Change is what happened to a domain or exception: "started", "stopped", "changed"; "used-up", "expired", "revoked".
	Change    string     `json:"change,omitempty"`
	Source    string     `json:"source,omitempty"`    // of a policy; the file that cannot be read
	Exception *Exception `json:"exception,omitempty"` // of exception events
	// Generation and Pause, in seconds, are those of a take-over.
	Generation uint64  `json:"generation,omitempty"`
	Pause      float64 `json:"pause_seconds,omitempty"`
	// Version and Mode ("passthrough", "daemon") are those of a view that begins.
	Version string `json:"version,omitempty"`
	Mode    string `json:"mode,omitempty"`
}
