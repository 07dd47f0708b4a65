// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"imgward/guard/policy"
)

// Exception lets one user do to one image what would be refused (`imgward allow`). It is kept as JSON while the daemon
// is restarted or replaced.
type Exception struct {
	ID    uint64     `json:"id"` // for revoking it
	Image ID         `json:"image"`
	Birth            // of the file
	Path  string     `json:"path"` // as it was named, for people
	Ops   policy.Ops `json:"ops"`
	// Once has it hold for one command: the process that is the first to use it, and its children.
	Once    bool      `json:"once,omitempty"`
	Command *Command  `json:"command,omitempty"` // that process; nil: nobody has used it yet
	Granted time.Time `json:"granted"`
	Expires time.Time `json:"expires"`
	UID     uint32    `json:"uid"` // whose requests it is for
	// LoginUID narrows it to the sessions of one login: all administrators are uid 0 after sudo. Nil: not known.
	LoginUID *uint32 `json:"login_uid,omitempty"`
	TTY      string  `json:"tty,omitempty"` // where it was asked for
	Reason   string  `json:"reason"`
}

// Command is the process that has used up an exception for a single command.
type Command struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // as Process has it
	Comm  string `json:"comm"`
}

// ReasonPlaceholder stands for the reason in the command that a refusal prints. It is none.
const ReasonPlaceholder = "WHY"

// MaxException is the longest that an exception may last. What is to hold for longer belongs into the policy.
const MaxException = 24 * time.Hour

// validate says what is wrong with an exception that somebody asks for.
func (e *Exception) validate(now time.Time) error {
	switch {
	case e.Image == ID{}:
		return errors.New("an exception needs an image")
	case e.Ops == 0 || e.Ops&^policy.AllOps != 0:
		return errors.New("an exception needs operations: truncate, write, unlink, rename or set-flags")
	case e.Reason == "":
		return errors.New("an exception needs a reason: it goes into the log for those who ask later")
	case strings.TrimSpace(e.Reason) == ReasonPlaceholder:
		return errors.New("write your reason instead of " + ReasonPlaceholder + ": it goes into the log for those who ask later")
	case !e.Expires.After(now):
		return errors.New("an exception needs a time for which it holds")
	case e.Expires.After(now.Add(MaxException)):
		return fmt.Errorf("an exception holds for %.0fh at most; for longer, change the policy", MaxException.Hours())
	}
	return nil
}

// covers says whether the exception is for this operation of this user.
func (e *Exception) covers(image ID, op Op, uid uint32, now time.Time) bool {
	return e.Image == image && e.Ops&op.Kind() != 0 && e.UID == uid && now.Before(e.Expires)
}
