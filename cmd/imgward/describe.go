package main

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"imgward/cmd/imgward/control"
	"imgward/guard"
)

// shown makes a name that somebody may have chosen to mislead (newlines, terminal escapes, marks that turn the writing
// direction) fit for a terminal.
func shown(name string) string {
	for _, r := range name {
		if r == utf8.RuneError || r == '\\' || !unicode.IsPrint(r) {
			return strconv.Quote(name)
		}
	}
	return name
}

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
		return fmt.Sprintf("take-over: worker %d of this view serves, after a pause of %.0f ms", e.Generation, e.Pause*1000)
	case guard.EventPolicy:
		return "policy: in force is " + shown(e.Source)
	case control.EventPolicyRejected:
		return "policy rejected: " + shown(e.Reason)
	}
	return fmt.Sprintf("%s: %s %s", e.Type, shown(e.Source), shown(e.Reason))
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
	if e.Uses > 0 {
		fmt.Fprintf(&b, ", %d use left", e.Uses)
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
