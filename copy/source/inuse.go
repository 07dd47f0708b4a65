// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"imgward/guard"
)

// ErrInUse says that a virtual machine, or another copy, uses the image.
var ErrInUse = errors.New("in use")

// InUseError says who uses an image. It is ErrInUse.
type InUseError struct {
	Path string
	Uses []guard.Use
	Hint string // what to do now
}

// Error names the image, every domain with its disk target and process, and the way out.
func (e *InUseError) Error() string {
	var why []string
	for _, u := range e.Uses {
		if d := Describe(u); !slices.Contains(why, d) {
			why = append(why, d)
		}
	}
	if len(why) == 0 {
		why = append(why, "another process holds QEMU's image locks on it")
	}
	return fmt.Sprintf("%s is in use: %s; %s", e.Path, strings.Join(why, ", and "), e.Hint)
}

// Is makes errors.Is(err, ErrInUse) true.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// Describe is one use as a clause: "it is vdb of running domain rhevm (pid 1234)", or of another layer "/dev/loop0, with
// which it shares bytes, is vdb of …".
func Describe(u guard.Use) string {
	what := "it"
	if u.Layer != "" {
		what = u.Layer + ", with which it shares bytes,"
	}
	return describe(what, u)
}

func describe(image string, u guard.Use) string {
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
		return "QEMU's image locks are held on " + strings.TrimSuffix(image, ",") + " by another process"
	case u.Evidence == guard.EvidencePolicy:
		return "the policy protects " + strings.TrimSuffix(image, ",")
	case u.PID != 0:
		who = fmt.Sprintf("%s (pid %d)", who, u.PID)
	}
	switch {
	case u.Role != guard.RoleUnknown || u.Target != "":
		return fmt.Sprintf("%s is %s of %s", image, what, who)
	case u.Problem != "":
		return fmt.Sprintf("%s may be a disk of %s", image, who)
	}
	return fmt.Sprintf("%s is open in %s", image, who)
}
