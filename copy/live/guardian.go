// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// What parent and guardian say to each other, a line each. The parent's silence says most: the end of its pipe is its
// end.
const (
	sayEntered = "entered" // guardian: all Enter commands have been done
	sayLeave   = "leave"   // parent: undo now
	sayDrop    = "drop"    // parent: nothing is left to be undone
	sayLeft    = "left"    // guardian: undone, as it was told
	sayLate    = "late"    // guardian: undone because the time was up
)

// Guard is the guardian's whole life: it reads its script from in, does it, and undoes it when it is told so, when in
// ends because its parent was killed, or when the time is up. Both doing and undoing happen here, one after the other, so
// that no kill of the parent can put the undoing before the doing. The caller ignores signals.
func Guard(in io.Reader, out io.Writer, l Libvirt) error {
	lines := bufio.NewReader(in)
	var s script
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the script: %w", err)
	}
	if err := json.Unmarshal(first, &s); err != nil {
		return fmt.Errorf("read the script: %w", err)
	}
	entered, err := s.enter(context.Background(), l)
	if err != nil {
		err = errors.Join(err, leave(entered, l))
		fmt.Fprintf(out, "%q\n", err.Error())
		return err
	}
	fmt.Fprintln(out, sayEntered)
	word := s.wait(lines)
	if word == sayDrop {
		return nil
	}
	if err := leave(entered, l); err != nil {
		fmt.Fprintf(out, "%q\n", err.Error())
		return err
	}
	fmt.Fprintln(out, word)
	return nil
}

func (s *script) enter(ctx context.Context, l Libvirt) (done []step, err error) {
	for _, st := range s.Steps {
		if err := st.enter(ctx, l); err != nil {
			return append(done, st), err // it may have been done all the same
		}
		done = append(done, st)
	}
	return done, nil
}

// wait returns what is to be answered, or sayDrop.
func (s *script) wait(in *bufio.Reader) string {
	heard := make(chan string, 1)
	go func() {
		line, _ := in.ReadString('\n')
		heard <- strings.TrimSpace(line)
	}()
	var late <-chan time.Time
	if s.Limit > 0 {
		late = time.After(s.Limit)
	}
	select {
	case word := <-heard:
		if word == sayDrop {
			return sayDrop
		}
		return sayLeft
	case <-late:
		return sayLate
	}
}

// How long undoing is tried: libvirt may be restarting, or busy with a job of the domain.
const (
	leaveFor   = time.Minute
	leavePause = 200 * time.Millisecond
)

// leave undoes in reverse order.
func leave(entered []step, l Libvirt) (err error) {
	ctx := context.Background() // undone it will be
	for i := len(entered) - 1; i >= 0; i-- {
		for end := time.Now().Add(leaveFor); ; time.Sleep(leavePause) {
			e := entered[i].leave(ctx, l)
			if e == nil || time.Now().After(end) {
				err = errors.Join(err, e)
				break
			}
		}
	}
	return err
}
