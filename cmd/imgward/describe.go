// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"strings"
	"time"

	"imgward/cmd/imgward/control"
	"imgward/cmd/imgward/terminal"
	"imgward/guard"
)

// shown makes a name that somebody may have chosen to mislead fit for a terminal.
func shown(name string) string { return terminal.Safe(name) }

// describeEvent is an event in one line, without its time.
func describeEvent(e *guard.Event) string {
	switch e.Type {
	case guard.EventRefusal:
		return describeRefusal(e)
	case guard.EventException, guard.EventExceptionUsed, guard.EventExceptionGone:
		line := string(e.Type)
		if e.Change != "" {
			line += " (" + shown(e.Change) + ")"
		}
		if e.Exception != nil {
			line += ": " + describeException(e.Exception)
		}
		return line
	case guard.EventDomain:
		line := fmt.Sprintf("domain %s %s (pid %d)", shown(e.Domain), e.Change, e.VMM)
		if e.Reason != "" {
			line += ": " + shown(e.Reason)
		}
		return line
	case guard.EventTakeover:
		return fmt.Sprintf("take-over: worker %d of this view serves%s", e.Generation, afterPause(e.Pause))
	case guard.EventBegin:
		return fmt.Sprintf("the view begins: imgward %s, %s, policy: %s", shown(e.Version), modeLine(e.Mode), shown(e.Source))
	case guard.EventEnd:
		return "the view ends"
	case guard.EventGuardBegin:
		return fmt.Sprintf("the second layer protects (%s): imgward %s, policy: %s", shown(e.Mode), shown(e.Version), shown(e.Source))
	case guard.EventGuardEnd:
		return "the second layer ends"
	case guard.EventPolicy:
		return "policy: in force is " + shown(e.Source)
	case control.EventViewCovered, control.EventViewGone, control.EventViewMoved, control.EventMountBelow:
		return fmt.Sprintf("%s (%s): %s", e.Type, e.Change, shown(e.Reason))
	case control.EventPolicyRejected:
		return "policy rejected: " + shown(e.Reason)
	}
	return fmt.Sprintf("%s: %s %s", e.Type, shown(e.Source), shown(e.Reason))
}

// modeLine says how the data of a view goes.
func modeLine(mode string) string {
	if mode == "daemon" {
		return "data through the daemon"
	}
	return mode
}

func describeRefusal(e *guard.Event) string {
	word := "refused"
	if e.Audit {
		word = "would have refused"
	}
	line := fmt.Sprintf("%s: %s of %s by %s (pid %d): %s", word, e.Op, shown(e.Path), shown(e.Comm), e.PID, shown(e.Reason))
	if e.Suppressed > 0 {
		line += fmt.Sprintf(" (and %d more like it)", e.Suppressed)
	}
	return line
}

// describeBriefly is a refusal for a line of 80 letters: what, to which image, by whom, and for which VM.
func describeBriefly(e *guard.Event) string {
	line := fmt.Sprintf("%s %s, %s (%d): ", e.Op, shown(path.Base(e.Path)), shown(e.Comm), e.PID)
	if e.Audit {
		line = "(let through) " + line
	}
	if e.Domain == "" {
		return line + shown(e.Reason)
	}
	return line + strings.TrimSpace(e.Target+" of "+shown(e.Domain))
}

// describeException is an exception in words: "3: truncate of vm.img until 14:05:00, once, for uid 0 …".
func describeException(e *guard.Exception) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s of %s until %s", e.ID, e.Ops, shown(e.Path), e.Expires.Local().Format(time.TimeOnly))
	switch {
	case e.Command != nil:
		fmt.Fprintf(&b, ", in use by %s (pid %d)", shown(e.Command.Comm), e.Command.PID)
	case e.Once:
		b.WriteString(", once")
	}
	fmt.Fprintf(&b, ", for uid %d", e.UID)
	if e.LoginUID != nil {
		fmt.Fprintf(&b, " (login uid %d)", *e.LoginUID)
	}
	if e.TTY != "" {
		fmt.Fprintf(&b, " on %s", shown(e.TTY))
	}
	fmt.Fprintf(&b, ": %s", shown(e.Reason))
	return b.String()
}
