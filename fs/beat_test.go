// SPDX-License-Identifier: Apache-2.0

package viewfs

import (
	"testing"
	"time"

	"imgward/fs/state"
)

// TestHeartbeat: a worker that answers nobody has no heartbeat, though it runs. One whose requests all wait for the backing
// file system has.
func TestHeartbeat(t *testing.T) {
	l := newLive(t, func(l *live) { l.heartbeat = heartbeat{time.Millisecond, 5 * time.Millisecond, 300 * time.Millisecond} })
	beats := func() uint64 { return state.Beats(l.State()) }
	until := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	stops := func() bool {
		before := beats()
		time.Sleep(100 * time.Millisecond)
		return beats() == before
	}
	goesOn := func() bool {
		for before, end := beats(), time.Now().Add(20*time.Second); beats() == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return false
			}
		}
		return true
	}
	if !goesOn() {
		t.Fatal("a new worker has no heartbeat")
	}
	l.FS.nodes.slotsMu.Lock()
	until("a worker that answers nobody has a heartbeat", stops)
	l.FS.nodes.slotsMu.Unlock()
	if !goesOn() {
		t.Error("a worker that answers again has no heartbeat")
	}
	// What is left for the readers that wait in read(2) is taken by the next requests.
	var taken []state.Slot
	for l.requests.Room() {
		taken = append(taken, l.requests.Take())
	}
	asked := make(chan error, 1)
	go func() { asked <- l.ping() }()
	time.Sleep(2 * l.heartbeat.unanswered)
	if !goesOn() {
		t.Error("a worker whose requests wait for the backing file system has no heartbeat")
	}
	for _, s := range taken {
		s.Free()
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
}

// TestPingWaitsForNoFile: the question whether a worker answers must not wait for the backing file system: it would be
// replaced again and again. (There is no descriptor of the root to ask it by.)
func TestPingWaitsForNoFile(t *testing.T) {
	l := newLive(t)
	root, no := l.FS.nodes.get(rootID)
	if no != 0 {
		t.Fatal(no)
	}
	if fd, had := root.path.take(); had { // from now on it would be opened for each request
		closeFd(fd)
	}
	l.FS.nodes.mounts.mu.Lock()
	fds := l.FS.nodes.mounts.fds
	l.FS.nodes.mounts.fds = nil // and cannot be
	l.FS.nodes.mounts.mu.Unlock()
	inTime(t, "a ping", l.ping)
	l.FS.nodes.mounts.mu.Lock()
	l.FS.nodes.mounts.fds = fds
	l.FS.nodes.mounts.mu.Unlock()
}
