// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// loop is a loop device that shows a file, or a part of it.
type loop struct {
	dir  string
	file ID
}

// part is where in the file the device's bytes are.
func (l loop) part() Range { return Range{number(l.dir, "loop/offset"), sectors(l.dir, "size")} }

// Loops remembers what loop devices show: a host may have dozens, of snaps, and to follow the path of each takes far longer
// than all else that is asked about a file. The kernel counts what a device has shown (diskseq, since Linux 5.15), so one look
// tells that it still shows what it showed. The zero value remembers nothing yet.
type Loops struct {
	mu    sync.Mutex
	known map[string]shown // by the device's name
}

// shown is what a device shows. What its path leads to is looked up again after a second: the path may be one of another
// mount namespace, and lead elsewhere here.
type shown struct {
	seq  string
	at   time.Time
	file ID // zero: nothing leads to it
}

const lookAgain = time.Second

func (l *Loops) recall(name string) (s shown, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, known = l.known[name]
	return s, known && time.Since(s.at) < lookAgain
}

// note remembers what a device shows; without a count it is forgotten.
func (l *Loops) note(name string, s shown) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = make(map[string]shown)
	}
	if l.known[name] = s; s.seq == "" {
		delete(l.known, name)
	}
}

// attached lists the loop devices that show something. One whose file nothing leads to (unlinked since, in another mount
// namespace) is left out.
func (w *walk) attached() []loop {
	if w.loops != nil {
		return w.loops
	}
	w.loops = []loop{}
	for _, name := range names(filepath.Join(w.Sys, "block")) {
		if !strings.HasPrefix(name, "loop") {
			continue
		}
		dir := filepath.Join(w.Sys, "block", name)
		if file := w.shows(name, dir); file != (ID{}) {
			w.loops = append(w.loops, loop{dir, file})
		}
	}
	return w.loops
}

// shows is the file that a loop device shows; zero if nothing leads to it, or there is none.
func (w *walk) shows(name, dir string) (file ID) {
	if w.Loops == nil {
		return w.follow(line(dir, "loop/backing_file"))
	}
	s, known := w.Loops.recall(name)
	if known && line(dir, "diskseq") == s.seq {
		return s.file
	}
	if !known && !has(dir, "loop/backing_file") {
		return ID{} // it shows nothing, which one look tells
	}
	now := shown{at: time.Now(), seq: line(dir, "diskseq")} // before the path is read: it may be the next file's
	now.file = w.follow(line(dir, "loop/backing_file"))
	w.Loops.note(name, now)
	return now.file
}

func (w *walk) follow(path string) ID {
	if path == "" {
		return ID{}
	}
	id, err := w.Lookup(path)
	if err != nil {
		return ID{}
	}
	return id
}
