// SPDX-License-Identifier: Apache-2.0

package procfs

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A process that does not answer costs those who ask about all the others one wait, and the next ones none.
func TestWalkDoesNotGetStuck(t *testing.T) { synctest.Test(t, walkBesideAStuckProcess) }

func walkBesideAStuckProcess(t *testing.T) {
	var w walker
	hang, pids := make(chan struct{}), []int{1, 2, 3, 4}
	visit := func(pid int, found func(int) bool) {
		if pid == 2 {
			<-hang
		}
		found(10 * pid)
	}
	see := func() (seen, stuck []int) {
		stuck, err := walk(context.Background(), &w, pids, visit, func(n int) bool {
			seen = append(seen, n)
			return true
		})
		if err != nil {
			t.Error(err)
		}
		return seen, stuck
	}
	for range 2 {
		seen, stuck := see()
		if slices.Sort(seen); !slices.Equal(seen, []int{10, 30, 40}) || !slices.Equal(stuck, []int{2}) {
			t.Errorf("seen %v, stuck %v", seen, stuck)
		}
	}
	close(hang)
	synctest.Wait()
	if seen, stuck := see(); !slices.Equal(seen, []int{10, 20, 30, 40}) || len(stuck) != 0 {
		t.Errorf("it answers again: seen %v, stuck %v", seen, stuck)
	}
}

// Many processes that do not answer are waited for no longer than two.
func TestWalkWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waited := func(pids ...int) (int, time.Duration) {
			var w walker
			begun := time.Now()
			stuck, err := walk(t.Context(), &w, pids, func(int, func(int) bool) { <-t.Context().Done() }, func(int) bool { return true })
			if err != nil {
				t.Error(err)
			}
			return len(stuck), time.Since(begun)
		}
		_, two := waited(1, 2)
		if n, many := waited(1, 2, 3, 4, 5, 6, 7, 8, 9); n != 9 || many > two {
			t.Errorf("%d of 9 are stuck, found out in %v; of two in %v", n, many, two)
		}
	})
}

func TestWalkEndsEarly(t *testing.T) {
	var w walker
	n := 0
	visit := func(pid int, found func(int) bool) {
		for found(pid) {
		}
	}
	_, err := walk(context.Background(), &w, []int{1, 2}, visit, func(int) bool {
		n++
		return n < 3
	})
	if n != 3 || err != nil {
		t.Errorf("%d results after an end, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := walk(ctx, &w, []int{1}, func(int, func(int) bool) { <-make(chan int) }, func(int) bool { return true }); err == nil {
		t.Error("the walk goes on without anybody waiting for it")
	}
}
