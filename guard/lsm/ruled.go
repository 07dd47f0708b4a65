// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/policy"
)

// ruled are the files of views that a rule of the policy keeps always, as of the last look.
type ruled struct {
	soon func() // called when a look has found others

	mu      sync.Mutex
	looking bool
	policy  *policy.Policy
	views   int
	next    time.Time
	files   map[guard.ID][]guard.Use
}

const (
	// walkEvery is how often views are gone through for such files, and walkShare bounds what that costs.
	walkEvery = 30 * time.Second
	walkShare = 50
	// maxRuled bounds how many are kept: each takes a descriptor.
	maxRuled = 10_000
)

// find lists them, as far as they are known: it waits for nobody. Where no rule keeps files always, nothing is looked at.
func (r *ruled) find(p *policy.Policy, views []View) map[guard.ID][]guard.Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !p.Uses(policy.Always) {
		r.files = nil
		return nil
	}
	if !r.looking && (r.policy != p || r.views != len(views) || time.Now().After(r.next)) {
		r.looking = true
		go r.look(p, views)
	}
	return r.files
}

func (r *ruled) look(p *policy.Policy, views []View) {
	began := time.Now()
	files := map[guard.ID][]guard.Use{}
	for _, v := range views {
		walkRuled(p, v, files)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looking, r.policy, r.views, r.files = false, p, len(views), files
	r.next = time.Now().Add(max(walkEvery, walkShare*time.Since(began)))
	r.soon()
}

func walkRuled(p *policy.Policy, v View, found map[guard.ID][]guard.Use) {
	root := v.Tree + "/"
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		rest := strings.TrimPrefix(path, root)
		var st unix.Stat_t
		if p.For(rest).Protect != policy.Always || unix.Lstat(path, &st) != nil {
			return nil
		}
		id := guard.StatID(&st)
		found[id] = []guard.Use{{Role: guard.RoleUnknown, Evidence: guard.EvidencePolicy, Path: filepath.Join(v.Mountpoint, rest)}}
		if len(found) == maxRuled {
			return fs.SkipAll
		}
		return nil
	})
}
