// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// floodRate is how many destructive operations a second there are beside the VM's I/O.
const floodRate = 10000

// floodWorkloads are two of fio's beside a flood of truncations of a disk that a VM uses. The view refuses them, the
// others do them; to be compared with the same workload without.
func floodWorkloads() []workload {
	var list []workload
	for _, w := range fioWorkloads() {
		if strings.HasPrefix(w.name, "4k random") && strings.HasSuffix(w.name, "depth 32") {
			quiet := w.run
			w.name += ", beside refusals"
			w.run = func(ctx context.Context, p *place, cfg *config) (done, error) {
				return besideFlood(ctx, p, func() (done, error) { return quiet(ctx, p, cfg) })
			}
			list = append(list, w)
		}
	}
	return list
}

// besideFlood does work while the flood goes on, and prints what the flood came to.
func besideFlood(ctx context.Context, p *place, work func() (done, error)) (done, error) {
	image := filepath.Join(p.dir, "flood.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o644); err != nil {
		return done{}, err
	}
	vm := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "16", "-S", "-display", "none", "-nodefaults",
		"-drive", "if=none,id=d,format=raw,file="+image, "-monitor", "stdio")
	monitor, err := vm.StdinPipe()
	if err != nil {
		return done{}, err
	}
	if err := vm.Start(); err != nil {
		return done{}, err
	}
	defer func() {
		monitor.Close()
		vm.Process.Kill()
		vm.Wait()
	}()
	if err := opened(ctx, vm.Process.Pid, image); err != nil {
		return done{}, err
	}
	if err := domain(vm.Process.Pid, image); err != nil {
		return done{}, err
	}
	stop := make(chan struct{})
	var f flood
	var all sync.WaitGroup
	began := time.Now()
	for range 2 {
		all.Go(func() { f.run(image, stop) })
	}
	d, err := work()
	close(stop)
	all.Wait()
	seconds := time.Since(began).Seconds()
	slog.Info("the flood", "place", p.name, "done_per_s", int(float64(f.done.Load())/seconds), "refused_per_s", int(float64(f.refused.Load())/seconds))
	if f.failed.Load() > 0 {
		err = errors.Join(err, fmt.Errorf("%d truncations failed otherwise than by EBUSY", f.failed.Load()))
	}
	return d, err
}

// statusDir is where libvirt says which domains run; here, in this program's own mount namespace, the benchmark does.
const statusDir = "/run/libvirt/qemu"

// mountStatusDir puts an empty one over the host's.
var mountStatusDir = sync.OnceValue(func() error {
	if err := os.MkdirAll(statusDir, 0o755); err != nil {
		return err
	}
	return unix.Mount("tmpfs", statusDir, "tmpfs", 0, "mode=755")
})

// domain says that a VM is libvirt's. Without that, a refusal rests on the VM's open handle alone, and is waited out for a
// moment: its release could be on its way.
func domain(pid int, image string) error {
	if err := mountStatusDir(); err != nil {
		return err
	}
	text := fmt.Sprintf(`<domstatus state='running' pid='%d'><domain type='qemu'><name>bench</name><devices><disk type='file' device='disk'>`+
		`<source file='%s'/><target dev='vda'/></disk></devices></domain></domstatus>`, pid, image)
	file := filepath.Join(statusDir, "bench.xml")
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// opened waits until a process has a file open.
func opened(ctx context.Context, pid int, path string) error {
	for ctx.Err() == nil {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if to, _ := os.Readlink(link); to == path {
				return nil
			}
		}
		if len(links) == 0 {
			return errors.New("QEMU has ended")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}

// flood is what one asks for at half the rate, and what becomes of it.
type flood struct{ done, refused, failed atomic.Int64 }

func (f *flood) run(image string, stop <-chan struct{}) {
	// A burst each 10 ms: a timer for each would be the bottleneck.
	const burst = 10 * time.Millisecond
	each := time.NewTicker(burst)
	defer each.Stop()
	for {
		select {
		case <-stop:
			return
		case <-each.C:
		}
		for range floodRate / 2 * int(burst) / int(time.Second) {
			switch err := os.Truncate(image, 1<<20); {
			case err == nil:
				f.done.Add(1)
			case errors.Is(err, unix.EBUSY):
				f.refused.Add(1)
			default:
				f.failed.Add(1)
			}
		}
	}
}
