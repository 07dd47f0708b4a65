// SPDX-License-Identifier: Apache-2.0

package second

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/policy"
	"imgward/guard/procfs"
)

// Driver tells layers what is in use, by the guard's evidence.
type Driver struct {
	guard  *guard.Guard
	log    *slog.Logger
	kick   Kick
	opened Kick     // of Config.Look
	absent []Status // the layers that this host cannot have

	layers  []Layer
	endings endings
	last    map[string]string // of each layer, the error that was logged last

	mu sync.Mutex
	// direct are the uses that only a look at all processes shows, as of the last one.
	direct   map[guard.ID][]guard.Use
	uses     map[guard.ID][]guard.Use // as declared the last time, which nobody changes any more
	waiting  []chan struct{}          // of Apply
	declared int                      // images, the last time
	took     time.Duration            // to declare them
}

// Kick has a Driver look again. A Guard is given Soon as Config.Changed, before there is a Driver.
type Kick chan struct{}

// NewKick makes one.
func NewKick() Kick { return make(Kick, 1) }

// Soon does not block.
func (k Kick) Soon() {
	select {
	case k <- struct{}{}:
	default:
	}
}

// Start makes the layers.
func Start(c *Config, makers []Maker, kick Kick) *Driver {
	d := &Driver{guard: c.Guard, log: c.Log, kick: kick, opened: NewKick(), last: make(map[string]string)}
	d.endings.ended = d.ended
	c.Soon, c.Look = kick.Soon, d.opened.Soon
	for _, m := range makers {
		l, err := m.Make(c)
		if err != nil {
			c.Log.Info("a part of the second layer is not to be had", "layer", m.Name, "reason", err)
			d.absent = append(d.absent, Status{Layer: m.Name, Reason: err.Error()})
			continue
		}
		d.layers = append(d.layers, l)
	}
	return d
}

const (
	// lookEvery is how often all processes are looked at for VMMs that libvirt knows nothing of.
	lookEvery = 5 * time.Second
	// lookAgain is how soon after a look there may be the next, when a layer has asked for it.
	lookAgain = 500 * time.Millisecond
	// locksEvery is how often the kernel's table of locks is looked at while it alone says that a block device is in use: nobody
	// is told when a lock goes.
	locksEvery = time.Second
	// share bounds what that costs: after a look that took a millisecond of CPU it rests for share milliseconds.
	share = 50
	// againShare is share where a layer has asked.
	againShare = 5
)

// Run declares what is in use, and again whenever that changes, until ctx ends. ready is called after the first time.
func (d *Driver) Run(ctx context.Context, ready func()) {
	d.look(ctx)
	go d.keepLooking(ctx)
	changed, done := NewKick(), make(chan struct{})
	go func() {
		defer close(done)
		d.keepDeclaring(ctx, changed, ready)
	}()
	for {
		select {
		case <-ctx.Done():
			<-done
			return
		case <-d.kick:
			d.release(ctx) // somebody waits for that, and a declaration of thousands of domains takes a while
			changed.Soon()
		}
	}
}

func (d *Driver) keepDeclaring(ctx context.Context, changed Kick, ready func()) {
	for {
		next := time.NewTimer(d.declare(ctx))
		if ready != nil {
			ready()
			ready = nil
		}
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-changed:
		case <-next.C:
		}
		next.Stop()
	}
}

// keepLooking looks at all processes again and again. Nobody waits for that who waits for a device to be let go of.
func (d *Driver) keepLooking(ctx context.Context) {
	for rest, least := lookEvery, lookAgain; ; {
		if !sleep(ctx, least, nil) || !sleep(ctx, rest-least, d.opened) {
			return
		}
		began := cpuTime()
		d.look(ctx)
		cost := cpuTime() - began
		rest, least = max(lookEvery, share*cost), max(lookAgain, againShare*cost)
		d.kick.Soon()
	}
}

// sleep waits for a time, or until it is woken; false: ctx has ended.
func sleep(ctx context.Context, long time.Duration, wake Kick) bool {
	t := time.NewTimer(long)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return true
}

// cpuTime is what this process has had of the CPU.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// declare reads the evidence and passes it on. It returns when the next exception ends, or what was not to be had is tried
// again.
func (d *Driver) declare(ctx context.Context) (next time.Duration) {
	began, cpu := time.Now(), cpuTime()
	defer d.applied()()
	uses := d.inUse(ctx)
	exceptions := d.guard.Exceptions()
	declared := &Declaration{At: began, Uses: uses, Exceptions: exceptions}
	d.mu.Lock()
	d.uses = uses
	d.mu.Unlock()
	for _, l := range d.layers {
		what := declared
		if !Wanted(d.guard.Policy(), l.Name()) {
			what = &Declaration{At: began}
		}
		d.report(l, l.Declare(ctx, what))
	}
	d.endings.follow(uses)
	next = max(lookEvery, share*(cpuTime()-cpu))
	for _, e := range exceptions {
		next = min(next, max(time.Until(e.Expires), time.Millisecond))
	}
	if lockedDevice(uses) {
		next = min(next, locksEvery)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.declared, d.took = len(uses), time.Since(began)
	return next
}

// Apply waits until what holds now, exceptions above all, has been declared to all layers.
func (d *Driver) Apply(ctx context.Context) error {
	done := make(chan struct{})
	d.mu.Lock()
	d.waiting = append(d.waiting, done)
	d.mu.Unlock()
	d.kick.Soon()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// applied is called as a declaration begins; what it returns, when it is done.
func (d *Driver) applied() func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.waiting
	d.waiting = nil
	return func() {
		for _, done := range waiting {
			close(done)
		}
	}
}

// ended is called when a VMM has ended. Whoever has ended a domain may want its disk at once.
func (d *Driver) ended() {
	d.kick.Soon()
	d.mu.Lock()
	uses := d.uses
	d.mu.Unlock()
	if len(uses[guard.ID{}]) > 0 {
		return // what is not declared may be in use all the same
	}
	for r := range d.releasers() {
		r.Release(func(id guard.ID) bool { return slices.ContainsFunc(uses[id], lives) })
	}
}

// release has the layers let go of what libvirt's files do not name any more.
func (d *Driver) release(ctx context.Context) {
	for r := range d.releasers() {
		held := r.HeldFor()
		if len(held) == 0 {
			continue
		}
		running, err := d.guard.RunningAmong(ctx, held)
		if err != nil || len(running[guard.ID{}]) > 0 {
			continue
		}
		d.mu.Lock()
		before, direct := d.uses, d.direct
		d.mu.Unlock()
		r.Release(func(id guard.ID) bool {
			return len(running[id]) > 0 || slices.ContainsFunc(direct[id], lives) || slices.ContainsFunc(before[id], withoutProcess)
		})
	}
}

func (d *Driver) releasers() iter.Seq[Releaser] {
	return func(yield func(Releaser) bool) {
		for _, l := range d.layers {
			if r, ok := l.(Releaser); ok && !yield(r) {
				return
			}
		}
	}
}

func withoutProcess(u guard.Use) bool { return u.PID == 0 }

func lives(u guard.Use) bool { return !Ended(u) }

func lockedDevice(uses map[guard.ID][]guard.Use) bool {
	for id, list := range uses {
		if id.Dev == guard.BlockDevice && !slices.ContainsFunc(list, func(u guard.Use) bool { return u.PID != 0 }) {
			return true
		}
	}
	return false
}

// Wanted says whether a policy wants a layer.
func Wanted(p *policy.Policy, layer string) bool {
	return p.Second == policy.SecondAuto || p.Second == policy.SecondStrict || string(p.Second) == layer
}

// inUse is what is in use now, by libvirt's files, and by the last look at all processes as far as those live.
func (d *Driver) inUse(ctx context.Context) map[guard.ID][]guard.Use {
	all := d.guard.Known(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, uses := range d.direct {
		for _, u := range uses {
			known := func(o guard.Use) bool { return o.PID == u.PID }
			if Ended(u) || slices.ContainsFunc(all[id], known) {
				continue
			}
			if id.Dev == guard.BlockDevice { // its locks were found as nobody's, which would not end with it
				all[id] = slices.DeleteFunc(all[id], func(o guard.Use) bool { return o.Evidence == guard.EvidenceLock })
			}
			all[id] = append(all[id], u)
		}
	}
	return all
}

// look finds what libvirt's files do not say: what VMMs have open, and what is locked.
func (d *Driver) look(ctx context.Context) {
	direct := make(map[guard.ID][]guard.Use)
	for id, uses := range d.guard.InUse(ctx) {
		for _, u := range uses {
			if u.Evidence == guard.EvidenceProcess || u.Evidence == guard.EvidenceLock && id.Dev != guard.BlockDevice {
				direct[id] = append(direct[id], u)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.direct = direct
}

// Ended says whether the process of a use is gone. A use without one never ends by itself.
func Ended(u guard.Use) bool {
	if u.PID == 0 {
		return false
	}
	st, err := (procfs.FS{Root: "/proc"}).Stat(u.PID)
	return err != nil || st.Gone()
}

// report logs an error once.
func (d *Driver) report(l Layer, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != d.last[l.Name()] {
		d.log.Warn("not all that is in use is protected", "layer", l.Name(), "error", text)
	}
	d.last[l.Name()] = text
}

// Status lists what each layer does.
func (d *Driver) Status() []Status {
	list := slices.Clone(d.absent)
	for _, l := range d.layers {
		s := l.Status()
		if p := d.guard.Policy(); !Wanted(p, l.Name()) {
			s.Active, s.Reason = false, `the policy says second-layer = "`+string(p.Second)+`"`
		}
		list = append(list, s)
	}
	return list
}

// Active names the layers that protect, for people.
func (d *Driver) Active() string {
	var names []string
	for _, s := range d.Status() {
		if s.Active {
			names = append(names, s.Layer)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Declared is how many images were declared the last time, and how long that took.
func (d *Driver) Declared() (images int, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.declared, d.took
}

// Close leaves all that protects to a successor. Run has returned.
func (d *Driver) Close() error { return d.each(Layer.Close) }

// Remove takes all layers away. Run has returned.
func (d *Driver) Remove() error { return d.each(Layer.Remove) }

func (d *Driver) each(do func(Layer) error) error {
	d.endings.follow(nil)
	var errs []error
	for _, l := range d.layers {
		errs = append(errs, do(l))
	}
	return errors.Join(errs...)
}
