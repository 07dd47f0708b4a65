package imgcopy

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"imgward/guard"
)

// The ways in which a copy fails that scripts tell apart; test with errors.Is. Everything else is a plain failure.
var (
	// ErrInUse: a virtual machine, or another copy, uses the image.
	ErrInUse = errors.New("in use")
	// ErrExists: the destination exists and overwriting was not asked for.
	ErrExists = errors.New("destination exists")
	// ErrNoSpace: the destination's file system or device is too small, found out before or while copying.
	ErrNoSpace = errors.New("no space")
	// ErrVerify: what was read back is not what was written, or not what the manifest says.
	ErrVerify = errors.New("verification failed")
	// ErrIncomplete: the copy was published, but parts of the source could not be read (Options.OnError).
	ErrIncomplete = errors.New("source partly unreadable")
)

// InUseError says who uses an image. It is ErrInUse.
type InUseError struct {
	Path string
	Uses []guard.Use
	Hint string // what to do now
}

// Error names the image, every domain with its disk target and process, and the way out.
func (e *InUseError) Error() string {
	why := make([]string, 0, len(e.Uses))
	for _, u := range e.Uses {
		why = append(why, describe(u))
	}
	if len(why) == 0 {
		why = append(why, "another process holds QEMU's image locks on it")
	}
	return fmt.Sprintf("%s is in use: %s; %s", e.Path, strings.Join(unique(why), ", and "), e.Hint)
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// describe is one use as a clause: "it is vdb of running domain rhevm (pid 1234)".
func describe(u guard.Use) string {
	what := u.Target
	if what == "" {
		what = string(u.Role)
	} else if u.Role != guard.RoleDisk {
		what = fmt.Sprintf("%s of %s", u.Role, u.Target)
	}
	who := "a running virtual machine"
	if u.Domain != "" {
		who = "running domain " + u.Domain
	}
	switch {
	case u.Evidence == guard.EvidenceLock:
		return "QEMU's image locks are held on it by another process"
	case u.Evidence == guard.EvidencePolicy:
		return "the policy protects it"
	case u.PID != 0:
		who = fmt.Sprintf("%s (pid %d)", who, u.PID)
	}
	return fmt.Sprintf("it is %s of %s", what, who)
}

func unique(lines []string) []string {
	seen := make(map[string]bool, len(lines))
	out := lines[:0]
	for _, l := range lines {
		if !seen[l] {
			seen[l] = true
			out = append(out, l)
		}
	}
	return out
}

// ExistsError says that the destination is there already. It is ErrExists.
type ExistsError struct {
	Path     string
	Next     string // the next free name in the same series, if the name has a number
	Contents string // what the destination holds, for block devices
	Uses     []guard.Use
	Beside   bool // no image: --overwrite does not help
}

// Error names the next free name: the accident behind this tool was a 2 typed for a 3.
func (e *ExistsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s exists", e.Path)
	if e.Contents != "" {
		fmt.Fprintf(&b, ": %s", e.Contents)
	}
	if len(e.Uses) > 0 {
		fmt.Fprintf(&b, ", and %s", describe(e.Uses[0]))
	}
	if e.Next != "" {
		fmt.Fprintf(&b, "; next free name: %s", e.Next)
	}
	if len(e.Uses) == 0 && !e.Beside {
		b.WriteString("; to overwrite it: --overwrite")
	}
	return b.String()
}

// Is makes errors.Is(err, ErrExists) true.
func (e *ExistsError) Is(target error) bool { return target == ErrExists }

// outOfSpace adds ErrNoSpace to the errors that mean it: a full file system, a quota, a device that ends.
func outOfSpace(err error) error {
	if errors.Is(err, ErrNoSpace) || !(errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoSpace, err)
}
