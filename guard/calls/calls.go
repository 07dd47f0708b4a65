// SPDX-License-Identifier: Apache-2.0

// Package calls makes calls that may never return, such as a look-up on a file system that does not answer, so
// that whoever asks can go on without them.
package calls

import (
	"context"
	"sync"
	"time"
)

const (
	// atOnce is how many calls run side by side while all of them return soon.
	atOnce = 8
	// lateAfter is how long a call may take before the next one no longer waits for it. A look-up on a disk that is
	// asleep takes longer, and only costs a thread more.
	lateAfter = 5 * time.Millisecond
	// maxLate bounds the threads that hang in the kernel; Go ends the process at 10,000.
	maxLate = 512
)

// Patience is how long an answer is waited for while nothing comes at all.
const Patience = 100 * time.Millisecond

// call is one call on its way.
type call struct {
	run         func(found func(take func()))
	late, ended bool
}

// Pool makes calls for one owner, who takes what they find when it suits him: nothing that a call finds is used by two
// goroutines. The zero value is ready for use.
type Pool struct {
	mu      sync.Mutex
	waiting []*call  // not begun
	hung    []*call  // not begun, and hung the last time: after all others, and never in all the room there is
	running int      // begun, neither ended nor late
	late    int      // begun long ago
	found   []func() // not taken yet
	news    chan struct{}
}

// Go makes a call on another goroutine. run passes what it finds to found as it finds it, as functions that Take runs.
// hung says that this call did not answer the last time.
func (p *Pool) Go(hung bool, run func(found func(take func()))) {
	c := &call{run: run}
	p.mu.Lock()
	defer p.mu.Unlock()
	if hung {
		p.hung = append(p.hung, c)
	} else {
		p.waiting = append(p.waiting, c)
	}
	p.start()
}

// start begins calls while there is room. p.mu is held.
func (p *Pool) start() {
	for p.running < atOnce && p.late < maxLate {
		c := p.next()
		if c == nil {
			return
		}
		p.running++
		go p.make(c)
	}
}

func (p *Pool) next() *call {
	queue := &p.waiting
	if len(*queue) == 0 && p.late < maxLate/2 {
		queue = &p.hung
	}
	if len(*queue) == 0 {
		return nil
	}
	c := (*queue)[0]
	*queue = (*queue)[1:]
	return c
}

// make makes a call, and those that come after it.
func (p *Pool) make(c *call) {
	timer := time.AfterFunc(lateAfter, func() { p.noteLate(c) })
	c.run(func(take func()) { p.add(take) })
	timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	c.ended = true
	if c.late {
		p.late--
	} else {
		p.running--
	}
	p.tell()
	p.start()
}

// noteLate gives a call's place to the next one.
func (p *Pool) noteLate(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.ended {
		return
	}
	c.late = true
	p.running--
	p.late++
	p.start()
}

func (p *Pool) add(take func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.found = append(p.found, take)
	p.tell()
}

// tell wakes Wait. p.mu is held.
func (p *Pool) tell() {
	select {
	case p.channel() <- struct{}{}:
	default:
	}
}

func (p *Pool) channel() chan struct{} {
	if p.news == nil {
		p.news = make(chan struct{}, 1)
	}
	return p.news
}

// News is ready to receive from when something may have been found, or a call has ended.
func (p *Pool) News() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.channel()
}

// Found says whether Take would find something.
func (p *Pool) Found() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.found) > 0
}

// Take runs, on this goroutine, the functions that stand for what was found since the last time.
func (p *Pool) Take() {
	p.mu.Lock()
	found := p.found
	p.found = nil
	p.mu.Unlock()
	for _, take := range found {
		take()
	}
}

// Wait takes what is found until more() says that nothing is missing, and gives up (false) when ctx ends or nothing has
// come for Patience.
func (p *Pool) Wait(ctx context.Context, more func() bool) bool {
	p.Take()
	if !more() {
		return true
	}
	news := p.News()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	for {
		select {
		case <-news:
			p.Take()
			if !more() {
				return true
			}
			timer.Reset(Patience)
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
