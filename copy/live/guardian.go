package live

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// script is what a guardian does: commands that bring machines into a state nobody may leave them in, and for each the
// one that undoes it.
type script struct {
	Steps []step        `json:"steps"`
	Limit time.Duration `json:"limit_ns"` // undo after this long, whatever the parent is doing; 0: no limit
}

type step struct {
	Enter []string `json:"enter"`
	Leave []string `json:"leave"`
}

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
func Guard(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	var s script
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the script: %w", err)
	}
	if err := json.Unmarshal(first, &s); err != nil {
		return fmt.Errorf("read the script: %w", err)
	}
	entered, err := s.enter()
	if err != nil {
		err = errors.Join(err, leave(entered))
		fmt.Fprintf(out, "%q\n", err.Error())
		return err
	}
	fmt.Fprintln(out, sayEntered)
	word := s.wait(lines)
	if word == sayDrop {
		return nil
	}
	if err := leave(entered); err != nil {
		fmt.Fprintf(out, "%q\n", err.Error())
		return err
	}
	fmt.Fprintln(out, word)
	return nil
}

func (s *script) enter() (done []step, err error) {
	for _, st := range s.Steps {
		if err := command(st.Enter); err != nil {
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
func leave(entered []step) (err error) {
	for i := len(entered) - 1; i >= 0; i-- {
		var e error
		for end := time.Now().Add(leaveFor); ; time.Sleep(leavePause) {
			if e = command(entered[i].Leave); e == nil || undone(e) || time.Now().After(end) {
				break
			}
		}
		if !undone(e) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// undone tells that there was nothing to undo: the domain runs, is gone, or has no job any more.
func undone(err error) bool {
	if err == nil {
		return true
	}
	for _, s := range []string{"already running", "not running", "is not paused", "no job is active", "failed to get domain"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

func command(args []string) error {
	_, err := output(context.Background(), args)
	return err
}

// output runs a command in the C locale; its error is the command's own last words.
func output(ctx context.Context, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	var words strings.Builder
	cmd.Stderr = &words
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(words.String()))
	}
	return string(out), nil
}
