// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// quietFor is how long a file must be left alone before it is read: an editor writes in several steps.
	quietFor = 200 * time.Millisecond
	// lookEvery finds what inotify does not tell: a link's target that changed, a directory that came into being.
	lookEvery = 10 * time.Second
)

// follow reloads the policy when its file changes, and at each hangup, until ctx ends. Mistakes are reported by Reload.
func (f *policyFile) follow(ctx context.Context, hangup <-chan os.Signal) {
	// Without inotify (fs.inotify.max_user_instances) the look every few seconds has to do.
	var events <-chan fsnotify.Event
	var failures <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, failures = watcher.Events, watcher.Errors
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	due := time.NewTimer(0) // what changed since the first reading is found at once
	for {
		if watcher != nil && len(watcher.WatchList()) == 0 {
			_ = watcher.Add(f.root + filepath.Dir(f.path)) // not there yet: looked for again
		}
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if e.Name == f.root+f.path {
				due.Reset(quietFor)
			}
		case <-failures: // an overflow: the next look finds what was missed
		case <-due.C:
			f.reloadChanged(ctx)
		case <-look.C:
			f.reloadChanged(ctx)
		case <-hangup:
			_, _ = f.Reload(ctx)
		}
	}
}

// reloadChanged reloads a file that is there and not the one read last. A file that has gone changes nothing until a
// reload is asked for: it may be on its way back.
func (f *policyFile) reloadChanged(ctx context.Context) {
	var st unix.Stat_t
	if unix.Stat(f.root+f.path, &st) != nil {
		return
	}
	f.mu.Lock()
	same := f.stamp == stampOf(&st)
	f.mu.Unlock()
	if !same {
		_, _ = f.Reload(ctx)
	}
}
