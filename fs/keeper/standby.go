// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// When a standby is started: not in the moments when a successor has all that had waited to do, nor again and again if
// standbys end.
const (
	standbyAfter = 200 * time.Millisecond
	standbyRetry = 10 * time.Second
)

func pastStandby() time.Time { return time.Now().Add(standbyAfter) }

// successor is the process that serves next, with all that is kept: the standby, or one started now.
func (k *Keeper) successor(died time.Time) (*child, error) {
	program := k.program()
	if c := k.standby; c != nil {
		k.standby = nil
		if c.after == program {
			if err := k.handOver(c, died); err == nil {
				return c, nil
			}
		}
		k.discard(c)
	}
	c, err := k.spawn(program)
	if err != nil {
		return nil, err
	}
	if err := k.handOver(c, died); err != nil {
		k.discard(c)
		return nil, fmt.Errorf("hand over to %s: %w", program, err)
	}
	return c, nil
}

// timeout is how long the keeper may wait for messages, in milliseconds; -1: until there are some.
func (k *Keeper) timeout() int {
	at := k.due()
	sooner := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if k.candidate != nil {
		sooner(k.candidate.until)
	}
	if k.wantsStandby() {
		sooner(k.standbyAt)
	}
	if at.IsZero() && (k.Pulse == nil || !k.served) {
		return -1
	}
	return max(0, int(time.Until(at)/time.Millisecond)+1)
}

func (k *Keeper) wantsStandby() bool {
	return k.standby == nil && k.served && !k.stopping && !k.NoStandby
}

// tend does what is due.
func (k *Keeper) tend() {
	now := time.Now()
	k.feelPulse(now)
	if c := k.candidate; c != nil && now.After(c.until) {
		k.answer("it does not answer")
	}
	if !k.wantsStandby() || now.Before(k.standbyAt) {
		return
	}
	var err error
	if k.standby, err = k.spawn(k.program()); err != nil {
		k.standbyAt = now.Add(standbyRetry)
		k.Log.Info("no standby: a take-over would have to start a program", "error", err)
	}
}

// lostStandby is called when a standby has ended; it had nothing yet.
func (k *Keeper) lostStandby() {
	status := k.standby.wait()
	k.standby, k.standbyAt = nil, time.Now().Add(standbyRetry)
	k.Log.Info("the standby ended; there will be another", "status", fmt.Sprint(status))
}

// dismiss ends what waits, when the view has ended.
func (k *Keeper) dismiss() {
	k.discard(k.standby)
	if k.candidate != nil {
		k.answer("the view has ended")
	}
}

// candidate is a process of another program that says whether it could take over.
type candidate struct {
	*child
	asked *os.File // who wants to know
	until time.Time
}

func (c *candidate) socket() int32 {
	if c == nil {
		return -1
	}
	return c.child.socket()
}

// tryTimeout is how long a program may take to say that it could take over.
const tryTimeout = 15 * time.Second

// try starts a program that may be the next one. If it can read the state, it becomes the standby.
func (k *Keeper) try(program string, asked *os.File) {
	if k.candidate != nil {
		k.answer("another was asked for")
	}
	c, err := k.spawn(program)
	if err != nil {
		fmt.Fprint(asked, err)
		asked.Close()
		return
	}
	_ = order(c.end, orderTry, []int{int(k.files[stateName].Fd())}) // it may have ended already: that will be heard
	k.candidate = &candidate{child: c, asked: asked, until: time.Now().Add(tryTimeout)}
}

// stateName is what viewfs calls the state memory.
const stateName = "state"

// heard reads what the candidate has to say.
func (k *Keeper) heard() {
	switch msg, err := answerOf(k.candidate.end); {
	case err != nil || msg == "":
		k.answer("it ended and said nothing")
	case msg == answerReady:
		k.discard(k.standby)
		k.standby = k.candidate.child
		k.Binary, k.fallback = k.candidate.after, false
		k.candidate.child = nil
		k.answer(answerReady)
	default:
		k.answer(msg)
	}
}

// answer tells who asked what came of the candidate.
func (k *Keeper) answer(msg string) {
	c := k.candidate
	k.candidate = nil
	if c.child != nil {
		_ = c.process.Kill()
		if err := c.wait(); err != nil && !errors.Is(err, os.ErrProcessDone) && msg == "it ended and said nothing" {
			msg = fmt.Sprintf("it ended and said nothing (%v)", err)
		}
	}
	fmt.Fprint(c.asked, msg)
	c.asked.Close()
}
