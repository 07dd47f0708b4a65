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

// walker looks at processes one after the other, and does not get stuck.
//
// A process in execve(2) cannot be looked at: the links and the stat file of /proc/PID wait until it is through
// (exec_update_lock, seen on 6.18), which takes for ever where it closes a file, or runs a program, of a file system
// that does not answer. Whoever asks must not wait with it, and not once more for a process that is known to be stuck.
type walker struct {
	mu    sync.Mutex
	stuck map[int]bool // pids that a goroutine waits for still
}

// walk has look look at each pid, in another goroutine, and gives yield what it finds, until yield says false. look may
// call found as often as it likes, and ends when that says false. It returns the pids that could not be looked at.
func walk[T any](ctx context.Context, w *walker, pids []int, look func(pid int, found func(T) bool), yield func(T) bool) (stuck []int, err error) {
	for len(pids) > 0 {
		if err := ctx.Err(); err != nil {
			return stuck, fmt.Errorf("procfs: look at all processes: %w", err)
		}
		t := &tour[T]{pids: pids, results: make(chan T), over: make(chan struct{})}
		go t.run(w, look)
		end, err := t.follow(ctx, yield)
		stuck = append(stuck, t.skipped...)
		if err != nil || end == len(pids) {
			return stuck, err
		}
		stuck = append(stuck, pids[end])
		abandon(w, t, pids[end])
		pids = pids[end+1:]
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

func (t *tour[T]) run(w *walker, look func(int, func(T) bool)) {
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
		look(pid, found)
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
