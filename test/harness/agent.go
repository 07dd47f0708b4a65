// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"imgward/test/guest/block"
	"imgward/test/guest/wire"
)

// Agent talks to the agent inside a running guest.
type Agent struct {
	domain *Domain
	path   string
	conn   net.Conn
	in     *bufio.Reader
	next   uint64
}

// agentSocket is where QEMU listens for the host. Socket paths must stay below 108 bytes, so it does not sit in the
// test's own directory, whose name is long.
func agentSocket(h *Host, domain string) string {
	return filepath.Join("/run", filepath.Base(h.Dir)+"-"+domain+".sock")
}

// NewAgent returns a new connection to the guest's agent, made at the first request; the agent serves one at a time.
func (d *Domain) NewAgent(t testing.TB) *Agent {
	a := &Agent{domain: d, path: d.host.root + agentSocket(d.host, d.Name)}
	t.Cleanup(a.close)
	return a
}

// Ping waits until the agent answers: the guest has booted.
func (a *Agent) Ping(t testing.TB) {
	t.Helper()
	Until(t, a.domain.Name+"'s guest has booted", func() bool {
		_, err := a.ask(&wire.Request{Op: wire.OpPing}, 3*time.Second)
		return err == nil
	})
	a.close()
}

// Do makes a request. It fails the test if the guest does not answer, or answers with an error.
func (a *Agent) Do(t testing.TB, req wire.Request) *wire.Reply {
	t.Helper()
	reply, err := a.Try(req)
	if err != nil {
		t.Fatalf("%s: guest agent: %s %s: %v", a.domain.Name, req.Op, req.Disk, err)
	}
	return reply
}

// Try makes a request and returns the guest's error.
func (a *Agent) Try(req wire.Request) (*wire.Reply, error) { return a.TryFor(deadline, req) }

// TryFor is Try with less patience, for a guest that may be about to reboot: what it was asked then gets lost.
func (a *Agent) TryFor(patience time.Duration, req wire.Request) (*wire.Reply, error) {
	defer a.close()
	reply, err := a.ask(&req, patience)
	if err == nil && reply.Error != "" {
		err = fmt.Errorf("in the guest: %s", reply.Error)
	}
	return reply, err
}

func (a *Agent) ask(req *wire.Request, patience time.Duration) (*wire.Reply, error) {
	if a.conn == nil {
		conn, err := net.Dial("unix", a.path)
		if err != nil {
			return nil, err
		}
		a.conn, a.in = conn, bufio.NewReader(conn)
	}
	a.conn.SetDeadline(time.Now().Add(patience))
	// Unique over all connections: the reply to a request whose asker gave up must not be taken for another's.
	a.next = uint64(time.Now().UnixNano())
	req.ID = a.next
	line, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	// A line feed first ends what an earlier connection may have left half sent.
	if _, err := a.conn.Write(append(append([]byte("\n"), line...), '\n')); err != nil {
		a.close()
		return nil, err
	}
	return a.answer()
}

// answer reads lines until one is the reply that is waited for.
func (a *Agent) answer() (*wire.Reply, error) {
	for {
		line, err := a.in.ReadBytes('\n')
		if err != nil {
			a.close()
			return nil, err
		}
		var reply wire.Reply
		if json.Unmarshal(line, &reply) == nil && reply.ID == a.next {
			return &reply, nil
		}
	}
}

func (a *Agent) close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// Fill writes blocks to a disk, and fsyncs.
func (a *Agent) Fill(t testing.TB, disk string, first, blocks uint64) {
	t.Helper()
	a.Do(t, wire.Request{Op: wire.OpFill, Disk: disk, First: first, Blocks: blocks})
}

// Account returns the guest's own account of what it wrote to a disk.
func (a *Agent) Account(t testing.TB, disk string) *block.Account {
	t.Helper()
	return a.Do(t, wire.Request{Op: wire.OpAccount, Disk: disk}).Account
}

// Healthy fails the test if anything that the guest wrote to the disks reads back wrong, or if its kernel logged an I/O
// error. Writers must have been stopped.
func (a *Agent) Healthy(t testing.TB, disks ...string) {
	t.Helper()
	for _, disk := range disks {
		for _, wrong := range a.Do(t, wire.Request{Op: wire.OpVerify, Disk: disk}).Lines {
			t.Errorf("%s: guest reads: %s", a.domain.Name, wrong)
		}
	}
	for _, line := range a.Do(t, wire.Request{Op: wire.OpErrors}).Lines {
		t.Errorf("%s: guest's kernel: %s", a.domain.Name, line)
	}
}
