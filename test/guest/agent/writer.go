// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/guest/block"
	"imgward/test/guest/wire"
)

// syncEvery is how many writes share one fsync: few enough that most of an account is durable at any moment.
const syncEvery = 4

// writer writes blocks to one disk and keeps the account of them. mu guards everything but disk; it is not held during
// I/O of the running writer, so that progress can be asked for while the disk hangs.
type writer struct {
	disk string

	mu      sync.Mutex
	account *block.Account
	state   wire.Progress
	quit    chan struct{} // closed by stop; nil while not running
	done    chan struct{} // closed by the writer
}

func newWriter(disk string) *writer {
	return &writer{disk: disk, account: block.NewAccount(disk)}
}

func (w *writer) fill(first, blocks uint64) error {
	f, err := openDisk(w.disk, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := aligned(block.Size)
	defer unix.Munmap(buf)
	for lba := first; lba < first+blocks; lba++ {
		if err := w.writeOne(f, buf, lba); err != nil {
			return err
		}
	}
	return w.sync(f)
}

func (w *writer) start(first, blocks uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.quit != nil {
		return fmt.Errorf("%s is being written already", w.disk)
	}
	f, err := openDisk(w.disk, os.O_RDWR)
	if err != nil {
		return err
	}
	w.state = wire.Progress{}
	w.quit, w.done = make(chan struct{}), make(chan struct{})
	go w.run(f, first, blocks, w.quit, w.done)
	return nil
}

func (w *writer) run(f *os.File, first, blocks uint64, quit, done chan struct{}) {
	defer close(done)
	defer f.Close()
	buf := aligned(block.Size)
	defer unix.Munmap(buf)
	for n := 1; ; n++ {
		err := w.writeOne(f, buf, first+rand.Uint64N(blocks))
		select {
		case <-quit:
			w.note(w.sync(f))
			return
		default:
		}
		if err == nil && n%syncEvery == 0 {
			err = w.sync(f)
		}
		if err != nil {
			w.note(err)
			return
		}
	}
}

func (w *writer) writeOne(f *os.File, buf []byte, lba uint64) error {
	w.mu.Lock()
	seq := w.account.Issue(lba)
	w.mu.Unlock()
	block.Fill(buf, w.disk, lba, seq)
	began := time.Now()
	_, err := f.WriteAt(buf, int64(lba*block.Size))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Writes++
	w.state.WorstMS = max(w.state.WorstMS, time.Since(began).Milliseconds())
	return err
}

func (w *writer) sync(f *os.File) error {
	began := time.Now()
	err := f.Sync()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Fsyncs++
	w.state.WorstMS = max(w.state.WorstMS, time.Since(began).Milliseconds())
	if err != nil {
		return err
	}
	w.account.Synced()
	return nil
}

func (w *writer) note(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Error = err.Error()
}

// stop ends the writer with a last fsync and waits for it.
func (w *writer) stop() *wire.Progress {
	w.mu.Lock()
	quit, done := w.quit, w.done
	w.quit = nil
	w.mu.Unlock()
	if quit != nil {
		close(quit)
		<-done
	}
	return w.progress()
}

func (w *writer) progress() *wire.Progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.state
	return &p
}

func (w *writer) forget(from, to uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.account.Forget(from, to)
}

// snapshot returns a copy of the account, which the writer does not change any more.
func (w *writer) snapshot() *block.Account {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := block.NewAccount(w.disk)
	a.Seq = w.account.Seq
	for lba, span := range w.account.Blocks {
		a.Blocks[lba] = span
	}
	return a
}

// verify reads back every place of the account and returns what is wrong, at most a few lines. The writer must have been
// stopped.
func (w *writer) verify() ([]string, error) {
	f, err := openDisk(w.disk, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := aligned(block.Size)
	defer unix.Munmap(buf)
	a := w.snapshot()
	var wrong []string
	for lba := range a.Blocks {
		if _, err := f.ReadAt(buf, int64(lba*block.Size)); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s block %d: %v", w.disk, lba, err))
		} else if err := a.Check(lba, buf); err != nil {
			wrong = append(wrong, err.Error())
		}
		if len(wrong) >= 10 {
			break
		}
	}
	return wrong, nil
}
