// SPDX-License-Identifier: Apache-2.0

package viewfs

import "sync/atomic"

// pathFd is the O_PATH descriptor of a node, if one is kept, and how many requests use it right now. It may be taken
// away at any time; then the last of its users closes it.
type pathFd struct{ w atomic.Uint64 }

// Bits of the word: the descriptor plus one (0: none), taken away, and the users.
const (
	fdNumber = 1<<31 - 1
	fdTaken  = 1 << 31
	fdUser   = 1 << 32
)

// held says whether there is a descriptor, which pins the inode.
func (p *pathFd) held() bool { w := p.w.Load(); return w != 0 && w&fdTaken == 0 }

// put gives the node a descriptor. False: it has one.
func (p *pathFd) put(fd int) bool { return p.w.CompareAndSwap(0, uint64(fd)+1) }

// use returns the descriptor, which stays open until done is called. False: there is none.
func (p *pathFd) use() (fd int, ok bool) {
	for {
		w := p.w.Load()
		if w == 0 || w&fdTaken != 0 {
			return noFd, false
		}
		if p.w.CompareAndSwap(w, w+fdUser) {
			return int(w&fdNumber) - 1, true
		}
	}
}

// done ends a use. What it returns is to be closed, if it is not noFd.
func (p *pathFd) done() (closing int) {
	for {
		w := p.w.Load()
		next, closing := w-fdUser, noFd
		if next < fdUser && next&fdTaken != 0 {
			next, closing = 0, int(w&fdNumber)-1
		}
		if p.w.CompareAndSwap(w, next) {
			return closing
		}
	}
}

// take takes the descriptor away; had says that there was one. What it returns is to be closed, if it is not noFd: else
// its last user will.
func (p *pathFd) take() (closing int, had bool) {
	for {
		w := p.w.Load()
		if w == 0 || w&fdTaken != 0 {
			return noFd, false
		}
		next, closing := w|fdTaken, noFd
		if w < fdUser {
			next, closing = 0, int(w&fdNumber)-1
		}
		if p.w.CompareAndSwap(w, next) {
			return closing, true
		}
	}
}

// takeIdle is take for a descriptor that nobody uses right now.
func (p *pathFd) takeIdle() (closing int, ok bool) {
	w := p.w.Load()
	if w == 0 || w >= fdUser || w&fdTaken != 0 || !p.w.CompareAndSwap(w, 0) {
		return noFd, false
	}
	return int(w&fdNumber) - 1, true
}
