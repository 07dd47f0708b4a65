package guard

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

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
	regime     atomic.Pointer[regime]
	domains    *domains // that run, by the status files
	sessions   *domains // those of ordinary users, for their names
	exceptions exceptions
	events     Events
	counters   counters
	limiter    limiter
	leases     procfs.Leases
	records    chan Event // on their way to the log
	audits     chan Event // on their way to the kernel's audit log

	kick chan struct{} // makes keepWarm look at once
	stop func()        // ends the goroutines
	done sync.WaitGroup
}

var _ Checker = (*Guard)(nil)

// New makes a Guard and begins to read the evidence in the background: the first question about a destroyer waits for
// that, a VMM's does not. Close ends it.
func New(c Config) (*Guard, error) {
	c = c.withDefaults()
	g := &Guard{config: c, log: c.Log, records: make(chan Event, logsWaiting), audits: make(chan Event, logsWaiting), kick: make(chan struct{}, 1)}
	g.exceptions.save, g.exceptions.changed, g.exceptions.failed = c.SaveExceptions, g.exceptionChanged, g.notStored
	g.exceptions.restore(c.Exceptions)
	g.events.save = c.SaveEvent
	g.events.restore(c.History)

	system, session := bySession(c.StatusDirs)
	proc := procfs.FS{Root: c.ProcRoot, Host: c.HostRoot}
	g.domains = newDomains(c.Host, proc, libvirt.New(libvirt.Config{Dirs: system, PoolDirs: c.PoolDirs}), g.isVMM)
	g.domains.changed, g.domains.unreadable = g.domainChanged, g.domainUnreadable
	g.sessions = newDomains(c.Host, proc, libvirt.New(libvirt.Config{Dirs: session}), g.isVMM)
	g.sessions.namesOnly = true
	g.regime.Store(g.newRegime(c.Policy))

	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.done.Go(func() { g.keepWarm(ctx) })
	g.done.Go(func() { g.keepLog(ctx) })
	if c.Audit != nil {
		g.done.Go(func() { g.keepAudit(ctx) })
	}
	go g.keepSessions(ctx) // not waited for: a user's file system may never answer
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
	p, err := g.regime.Load().procs.Classify(pid)
	return err == nil && p.Kind == procfs.VMM
}
