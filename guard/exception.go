package guard

import (
	"errors"
	"fmt"
	"time"

	"imgward/guard/policy"
)

// Exception lets one user do to one image what would be refused (`imgward allow`). It is kept as JSON while the daemon
// is restarted or replaced.
type Exception struct {
	ID      uint64     `json:"id"` // for revoking it
	Image   ID         `json:"image"`
	Born    time.Time  `json:"born,omitzero"` // of the file; zero: its file system does not tell
	Path    string     `json:"path"`          // as it was named, for people
	Ops     policy.Ops `json:"ops"`
	Uses    int        `json:"uses,omitempty"` // how many are left; 0: any number while it lasts
	Granted time.Time  `json:"granted"`
	Expires time.Time  `json:"expires"`
	UID     uint32     `json:"uid"` // whose requests it is for
	// LoginUID narrows it to the sessions of one login: all administrators are uid 0 after sudo. Nil: not known.
	LoginUID *uint32 `json:"login_uid,omitempty"`
	TTY      string  `json:"tty,omitempty"` // where it was asked for
	Reason   string  `json:"reason"`
}

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
		return errors.New("an exception needs a reason: it stands in the log for those who ask later")
	case e.Uses < 0:
		return fmt.Errorf("an exception cannot be used %d times", e.Uses)
	case !e.Expires.After(now):
		return errors.New("an exception needs a time for which it holds")
	case e.Expires.After(now.Add(MaxException)):
		return fmt.Errorf("an exception holds for %v at most; what is to hold for longer belongs into the policy", MaxException)
	}
	return nil
}

// covers says whether the exception is for this operation of this user.
func (e *Exception) covers(image ID, op Op, uid uint32, now time.Time) bool {
	return e.Image == image && e.Ops&op.Kind() != 0 && e.UID == uid && now.Before(e.Expires)
}
