// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// fleet is a host with many running domains, each with a status file of 20 KB and two images.
func fleet(b *testing.B, n int, h *host) (last string) {
	b.Helper()
	padding := append(bytes.Repeat([]byte("<flag name='x'/>\n"), 1150), "</qemuCaps>"...)
	vmm := h.run("vmm")
	for i := range n {
		images := []string{h.image(fmt.Sprintf("pool/vm%d-disk1.img", i)), h.image(fmt.Sprintf("pool/vm%d-disk2.img", i))}
		text := statusFile(fmt.Sprintf("vm%d", i), vmm.PID, images...)
		text = bytes.Replace(text, []byte("><domain"), append([]byte("><qemuCaps>"), append(padding, "<domain"...)...), 1)
		h.must(os.MkdirAll(h.status, 0o755))
		h.must(os.WriteFile(filepath.Join(h.status, fmt.Sprintf("vm%d.xml", i)), text, 0o600))
		last = images[1]
	}
	return last
}

// runHost is a host whose /run is a tmpfs, as everywhere that systemd runs.
func runHost(b *testing.B) *host {
	b.Helper()
	need.Have(b, need.Mounting)
	h := newHost(b)
	run := filepath.Join(h.dir, "run")
	h.must(os.Mkdir(run, 0o755))
	h.must(unix.Mount("tmpfs", run, "tmpfs", 0, "mode=755"))
	b.Cleanup(func() { h.must(unix.Unmount(run, unix.MNT_DETACH)) })
	return h
}

// BenchmarkDecision is what a destroyer's request costs on a host with many domains: while nothing changes, and when a
// status file was written just before it.
func BenchmarkDecision(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		h := runHost(b)
		used := fleet(b, n, h)
		idle := h.image("idle.img")
		before := heap()
		began := time.Now()
		g := h.guard()
		h.must(g.domains.locked(background, func() {}))
		load := time.Since(began)
		kept := heap() - before
		name := func(what string) string { return fmt.Sprintf("%d/%s", n, what) }
		b.Run(name("load"), func(b *testing.B) {
			b.ReportMetric(float64(load.Milliseconds()), "ms")
			b.ReportMetric(float64(kept)/(1<<20), "MiB-heap")
			b.ReportMetric(0, "ns/op")
		})
		settle()
		outsider := h.run("outsider")
		refused, allowed := h.request(OpTruncate, used, outsider), h.request(OpTruncate, idle, outsider)
		b.Run(name("refused"), func(b *testing.B) {
			percentiles(b, func() { ask(b, g, refused, false) }, nil)
		})
		b.Run(name("allowed"), func(b *testing.B) {
			percentiles(b, func() { ask(b, g, allowed, true) }, nil)
		})
		start := h.request(OpOpenWrite, used, h.run("vmm"))
		b.Run(name("a VMM opens"), func(b *testing.B) {
			percentiles(b, func() { g.Check(background, start) }, nil)
		})
		b.Run(name("changed"), func(b *testing.B) {
			percentiles(b, func() { ask(b, g, refused, false) }, func() { h.domain("another", os.Getpid(), idle+"x") })
		})
		g.Close()
	}
}

// BenchmarkDecisionOnDisk is the same where /run is a directory of the disk, as in a container: inode numbers are used again
// there, and say less.
func BenchmarkDecisionOnDisk(b *testing.B) {
	h := newHost(b)
	used := fleet(b, 10000, h)
	g := h.guard()
	h.must(g.domains.locked(background, func() {}))
	settle()
	refused := h.request(OpTruncate, used, h.run("outsider"))
	b.Run("10000/changed", func(b *testing.B) {
		percentiles(b, func() { ask(b, g, refused, false) }, func() { h.domain("another", os.Getpid(), used+"x") })
	})
}

// settle lets the directories' stamps become trustworthy.
func settle() { time.Sleep(100 * time.Millisecond) }

func ask(b *testing.B, g *Guard, r *Request, want bool) {
	if v := g.Check(background, r); v.Allowed != want {
		b.Fatalf("allowed %v: %s", v.Allowed, v.Reason)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// percentiles measures f, with before (if any) done before each, and not measured.
func percentiles(b *testing.B, f, before func()) {
	var took []time.Duration
	for b.Loop() {
		if before != nil {
			b.StopTimer()
			before()
			b.StartTimer()
		}
		began := time.Now()
		f()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1000, "µs-p99")
}

// BenchmarkIdle is the hot path: what outsiders do all day (tar x, rm -r, cp) to files that nobody uses, on a host with a
// few domains. `strace -f -c` of it counts the system calls of a decision.
func BenchmarkIdle(b *testing.B) {
	h := newHost(b)
	used := fleet(b, 10, h)
	idle := h.image("idle.img")
	g := h.guard()
	h.must(g.domains.locked(background, func() {}))
	settle()
	outsider := h.run("outsider")
	open := h.request(OpTruncate, idle, outsider)
	b.Run("idle", func(b *testing.B) {
		percentiles(b, func() { ask(b, g, open, true) }, nil)
	})
	refused := h.request(OpTruncate, used, outsider)
	b.Run("refused", func(b *testing.B) {
		percentiles(b, func() { ask(b, g, refused, false) }, nil)
	})
	b.Run("new process", func(b *testing.B) { // one command for each file, as a shell's loop has
		var p *process
		percentiles(b, func() { open.TID = p.PID; ask(b, g, open, true) }, func() {
			if p != nil {
				p.end()
			}
			p = h.run("outsider")
		})
	})
}
