// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// stuckAfter is how long a process may take to be looked at: far longer than a busy machine makes it.
const stuckAfter = 2 * time.Second

// walker looks at processes one after the other, and does not get stuck. What it waits for those that are stuck does not grow
// with their number.
//
// A process in execve(2) cannot be looked at: the links and the stat file of /proc/PID wait until it is through
// (exec_update_lock, seen on 6.18), which takes for ever where it closes a file, or runs a program, of a file system
// that does not answer. Whoever asks must not wait with it, and not once more for a process that is known to be stuck.
type walker struct {
	mu    sync.Mutex
	stuck map[int]bool // pids that a goroutine waits for still
}

// walk has visit look at each pid, in another goroutine, and gives yield what it finds, until yield says false. visit may
// call found as often as it likes, and ends when that says false. It returns the pids that could not be looked at.
func walk[T any](ctx context.Context, w *walker, pids []int, visit func(pid int, found func(T) bool), yield func(T) bool) (stuck []int, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("procfs: look at all processes: %w", err)
	}
	t := &tour[T]{pids: pids, results: make(chan T), over: make(chan struct{})}
	go t.run(w, visit)
	end, err := t.follow(ctx, yield)
	stuck = t.skipped
	if err != nil || end == len(pids) {
		return stuck, err
	}
	abandon(w, t, pids[end])
	more, err := together(ctx, w, pids[end+1:], visit, yield)
	return append(append(stuck, pids[end]), more...), err
}

// together has visit look at all pids at the same time: where one is stuck others are, behind the same file system, and they
// are waited for once.
func together[T any](ctx context.Context, w *walker, pids []int, visit func(pid int, found func(T) bool), yield func(T) bool) (stuck []int, err error) {
	results, done, over := make(chan T), make(chan int), make(chan struct{})
	defer close(over)
	pending := make(map[int]bool)
	for _, pid := range pids {
		if w.isStuck(pid) {
			stuck = append(stuck, pid)
			continue
		}
		pending[pid] = true
		go func() {
			visit(pid, func(r T) bool {
				select {
				case results <- r:
					return true
				case <-over:
					return false
				}
			})
			select {
			case done <- pid:
			case <-over:
				w.mark(pid, false)
			}
		}()
	}
	tick := time.NewTicker(stuckAfter)
	defer tick.Stop()
	for moved := true; len(pending) > 0; {
		select {
		case r := <-results:
			if !yield(r) {
				return stuck, nil
			}
			moved = true
		case pid := <-done:
			delete(pending, pid)
			moved = true
		case <-ctx.Done():
			return stuck, fmt.Errorf("procfs: look at all processes: %w", ctx.Err())
		case <-tick.C:
			if !moved {
				for pid := range pending {
					w.mark(pid, true)
					stuck = append(stuck, pid)
				}
				return stuck, nil
			}
			moved = false
		}
	}
	return stuck, nil
}

// tour is the part of a walk that one goroutine makes.
type tour[T any] struct {
	pids    []int
	at      atomic.Int64 // index of the pid that is being looked at
	skipped []int        // known to be stuck; read when results is closed
	results chan T       // closed at the end
	over    chan struct{}
}

func (t *tour[T]) run(w *walker, visit func(int, func(T) bool)) {
	defer close(t.results)
	found := func(r T) bool {
		select {
		case t.results <- r:
			return true
		case <-t.over:
			return false
		}
	}
	for i, pid := range t.pids {
		t.at.Store(int64(i))
		select {
		case <-t.over:
			return
		default:
		}
		if w.isStuck(pid) {
			t.skipped = append(t.skipped, pid)
			continue
		}
		visit(pid, found)
	}
}

// follow takes the results until there are no more, or no more wanted, and returns the number of pids; or the index of
// the one that the tour is stuck at.
func (t *tour[T]) follow(ctx context.Context, yield func(T) bool) (end int, err error) {
	tick := time.NewTicker(stuckAfter)
	defer tick.Stop()
	defer close(t.over)
	for last := int64(-1); ; {
		select {
		case r, more := <-t.results:
			if !more || !yield(r) {
				return len(t.pids), nil
			}
			last = -1
		case <-ctx.Done():
			return len(t.pids), fmt.Errorf("procfs: look at all processes: %w", ctx.Err())
		case <-tick.C:
			at := t.at.Load()
			if at == last {
				return int(at), nil
			}
			last = at
		}
	}
}

// abandon notes that a process is stuck, for as long as the tour waits for it.
func abandon[T any](w *walker, t *tour[T], pid int) {
	w.mark(pid, true)
	go func() {
		for range t.results {
		}
		w.mark(pid, false)
	}()
}

func (w *walker) mark(pid int, stuck bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck == nil {
		w.stuck = make(map[int]bool)
	}
	if stuck {
		w.stuck[pid] = true
	} else {
		delete(w.stuck, pid)
	}
}

func (w *walker) isStuck(pid int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stuck[pid]
}
