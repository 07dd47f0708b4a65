// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"imgward/guard/calls"
	"imgward/guard/layers"
	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// Guard is the Checker over one host's evidence. Its methods may be called concurrently.
//
// Lock order: exceptions before events; domains holds none of the others. No lock is held while a request to a view
// is made.
type Guard struct {
	config     Config
	log        *slog.Logger
	inForce    atomic.Pointer[inForce]
	domains    *domains // that run, by the status files
	sessions   *domains // those of ordinary users, for their names
	saved      *domains // whose state was saved
	states     stateFiles
	locked     atomic.Pointer[lockSearch] // the last one that is through
	remote     func(fd int) bool          // isRemote, but in tests
	exceptions exceptions
	events     Events
	counters   counters
	limiter    limiter
	leases     procfs.Leases
	lockers    lockers
	lookups    calls.Keyed
	loops      layers.Loops
	records    chan Event // on their way to the log
	audits     chan Event // on their way to the kernel's audit log

	kick chan struct{} // makes keepWarm refresh at once
	stop func()        // ends the goroutines
	done sync.WaitGroup
}

var _ Checker = (*Guard)(nil)

// New makes a Guard and, unless it is Brief, begins to read the evidence in the background: the first question about a
// destroyer waits for that, a VMM's does not. Close ends it.
func New(c Config) (*Guard, error) {
	c = c.withDefaults()
	g := &Guard{config: c, log: c.Log, records: make(chan Event, logsWaiting), audits: make(chan Event, logsWaiting), kick: make(chan struct{}, 1)}
	g.exceptions.save, g.exceptions.changed, g.exceptions.failed = c.SaveExceptions, g.exceptionChanged, g.notStored
	proc := procfs.FS{Root: c.ProcRoot, Host: c.HostRoot}
	g.exceptions.alive = proc.Alive
	g.exceptions.restore(c.Exceptions)
	g.events.save, g.events.view, g.events.last = c.SaveEvent, c.ViewRoot, max(c.FirstID, 1)-1
	g.events.restore(c.History)

	system, session := bySession(c.StatusDirs)
	g.domains = newDomains(c.Host, proc, libvirt.New(libvirt.Config{Dirs: system, PoolDirs: c.PoolDirs}), g.isVMM)
	g.domains.changed, g.domains.unreadable, g.domains.hangs = g.domainChanged, g.domainUnreadable, g.pathHangs
	g.sessions = newDomains(c.Host, proc, libvirt.New(libvirt.Config{Dirs: session}), g.isVMM)
	g.sessions.namesOnly = true
	g.states = stateFiles{g: g, known: make(map[string]*stateFile), suspects: make(map[string]bool), suspected: make(chan struct{}, 1)}
	g.saved = g.newSaved()
	g.remote = c.remote
	g.inForce.Store(g.newInForce(c.Policy))

	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	if !c.Brief {
		g.done.Go(func() { g.keepWarm(ctx) })
		g.done.Go(func() { g.states.follow(ctx) })
		go g.keepSessions(ctx)  // not waited for: a user's file system may never answer
		go g.keepSearching(ctx) // nor this: a file system within the view may not
	}
	g.done.Go(func() { g.keepLog(ctx) })
	if c.Audit != nil {
		g.done.Go(func() { g.keepAudit(ctx) })
	}
	return g, nil
}

// Close ends the Guard's goroutines. It must not be asked any more.
func (g *Guard) Close() error {
	g.stop()
	g.done.Wait()
	return nil
}

// Events is the stream of what happens.
func (g *Guard) Events() *Events { return &g.events }

func (g *Guard) isVMM(pid int) bool {
	p, err := g.inForce.Load().procs.Classify(pid)
	return err == nil && p.Kind == procfs.VMM
}
