package guard

import (
	"context"
	"log/slog"
	"sync"

	"imgward/guard/libvirt"
	"imgward/guard/procfs"
)

// Guard is the Checker over one host's evidence. Its methods may be called concurrently.
type Guard struct {
	config  Config
	log     *slog.Logger
	procs   *procfs.Classifier
	domains *domains

	stop func() // ends the goroutines
	done sync.WaitGroup
}

var _ Checker = (*Guard)(nil)

// New makes a Guard and begins to read the evidence in the background: the first question about a destroyer waits for
// that, a VMM's does not. Close ends it.
func New(c Config) (*Guard, error) {
	c = c.withDefaults()
	g := &Guard{config: c, log: c.Log}
	g.procs = &procfs.Classifier{FS: procfs.FS{Root: c.ProcRoot}, VMMs: c.Policy.VMMs, Managers: c.Policy.Managers}
	index := libvirt.New(libvirt.Config{Dirs: c.StatusDirs, PoolDirs: c.PoolDirs})
	g.domains = newDomains(c.Host, g.procs.FS, index, g.isVMM)

	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	g.done.Go(func() { g.keepWarm(ctx) })
	return g, nil
}

// Close ends the Guard's goroutines. It must not be asked any more.
func (g *Guard) Close() error {
	g.stop()
	g.done.Wait()
	return nil
}

func (g *Guard) isVMM(pid int) bool {
	p, err := g.procs.Classify(pid)
	return err == nil && p.Kind == procfs.VMM
}
