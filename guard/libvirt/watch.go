// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Watcher tells early that an Index may be out of date, so that little is left to do at the next question. Nothing rests
// on it but one thing: an edit in place leaves its directory's stamp as it was, and is noticed by its event, or by the
// next look at all files.
type Watcher struct {
	notify *fsnotify.Watcher
}

// NewWatcher makes a Watcher of nothing; Follow tells it what to watch. The error says what the kernel is short of
// (fs.inotify.max_user_instances).
func NewWatcher() (*Watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch libvirt's directories: %w", err)
	}
	return &Watcher{notify: n}, nil
}

// Close ends the watching, and Run.
func (w *Watcher) Close() error { return w.notify.Close() }

// Follow makes it watch these directories, and no others. In the place of one that does not exist it watches the
// nearest one above, until that one comes.
func (w *Watcher) Follow(dirs []string) {
	want := make(map[string]bool, len(dirs))
	for _, d := range dirs {
		want[nearest(d)] = true
	}
	for _, d := range w.notify.WatchList() {
		if !want[d] {
			_ = w.notify.Remove(d) // it may have gone by itself
		}
		delete(want, d)
	}
	for d := range want {
		_ = w.notify.Add(d) // what cannot be watched is found by looking
	}
}

// nearest is the deepest directory on the way to path that exists. A glob pattern's first variable part ends the way.
func nearest(path string) string {
	for isGlob(path) {
		path = filepath.Dir(path)
	}
	for path != "/" && path != "." {
		if _, err := os.Stat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// Run passes on what happens until ctx ends or the Watcher is closed: edited files are marked in the index, and changed
// is called, which must not block.
func (w *Watcher) Run(ctx context.Context, x *Index, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.notify.Events:
			if !ok {
				return
			}
			if e.Has(fsnotify.Write) {
				x.MarkStale(e.Name)
			}
			if !e.Has(fsnotify.Chmod) { // libvirt sets labels and owners; no file's contents change by that
				changed()
			}
		case err, ok := <-w.notify.Errors:
			if !ok {
				return
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				x.MarkAllStale()
				changed()
			}
		}
	}
}
