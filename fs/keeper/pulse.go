// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A worker may be there and yet serve nobody: stopped by a signal, in a frozen cgroup, or hung before it began. Everybody
// would wait for it, and it would never die. So the keeper looks for signs of life, and has a successor take its place.

// How long a successor may take to begin, and a worker to show no sign of life. Each is far more than a busy machine takes;
// besides, a worker with a thread that waits for a CPU is not taken for one that has stopped.
const (
	patience = 30 * time.Second
	grace    = 8 * time.Second
	looks    = 8 // in the grace: what the keeper itself did not live to see does not count
)

// Pulsing goes with a worker's READY=1: its program has a heartbeat.
const Pulsing = pulseVar + "=1"

// pulse is what is known of the present worker's signs of life.
type pulse struct {
	beginBy time.Time // when it must have begun; zero: whenever it likes
	next    time.Time // when to look again
	has     bool      // the worker's program has a heartbeat
	last    uint64
	missed  int // looks without a beat, in a row
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// newPulse is for a worker that has just been given everything. The first one may take its time: whoever mounts waits for
// it, and can end it.
func (k *Keeper) newPulse() {
	k.pulse = pulse{}
	if state := k.files[stateName]; state != nil && k.Pulse != nil {
		k.pulse.last = k.Pulse(state) // a predecessor's
	}
	if k.ready {
		k.pulse.beginBy = time.Now().Add(orElse(k.Patience, patience))
	}
}

// due is when there is something to be looked at; zero: never.
func (k *Keeper) due() time.Time {
	if !k.served {
		return k.pulse.beginBy
	}
	if k.Pulse == nil {
		return time.Time{}
	}
	return k.pulse.next
}

// feelPulse ends a worker that shows no sign of life.
func (k *Keeper) feelPulse(now time.Time) {
	at := k.due()
	if k.stopping || at.IsZero() && !(k.served && k.Pulse != nil) || now.Before(at) {
		return
	}
	if !k.served {
		k.replace("it has not begun to serve")
		return
	}
	wait := orElse(k.Grace, grace)
	p := &k.pulse
	p.next = now.Add(wait / looks)
	state := k.files[stateName]
	if state == nil {
		return
	}
	if beat := k.Pulse(state); beat != p.last {
		p.last, p.missed, p.has = beat, 0, true
		return
	}
	if p.missed++; !p.has || p.missed < looks {
		return
	}
	if alive(k.worker.pid) {
		p.missed = 0
		return
	}
	k.replace(fmt.Sprintf("it has shown no sign of life for %v", wait))
}

func (k *Keeper) replace(why string) {
	k.Log.Error("the worker serves nobody; it is ended, so that a successor can", "pid", k.worker.pid, "why", why)
	_ = unix.Kill(k.worker.pid, unix.SIGKILL)
	// It takes a moment to die.
	k.pulse.missed, k.pulse.beginBy = 0, time.Now().Add(orElse(k.Patience, patience))
}

// alive says whether a process is to be left alone though it does nothing: a thread of it waits for a CPU, or a debugger
// looks at it.
func alive(pid int) bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil || !strings.Contains(string(status), "\nTracerPid:\t0\n") {
		return true
	}
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/stat")
	for _, task := range tasks {
		stat, err := os.ReadFile(task)
		if i := bytes.LastIndexByte(stat, ')'); err == nil && i >= 0 && len(stat) > i+2 && stat[i+2] == 'R' {
			return true
		}
	}
	return false
}
