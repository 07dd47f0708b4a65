// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"imgward/test/guest/wire"
)

// server answers requests one by one; writers run beside it.
type server struct {
	writers map[string]*writer // by disk
}

func newServer() *server {
	return &server{writers: make(map[string]*writer)}
}

// serve returns only when the port fails. A host that is not connected (yet, or between two tests) reads as end of
// file.
func (s *server) serve(port *os.File) error {
	in := bufio.NewReader(port)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		if err := s.reply(port, line); err != nil {
			fmt.Println("agent: reply:", err) // the host went away; it will ask again
		}
	}
}

func (s *server) reply(port io.Writer, line []byte) error {
	var req wire.Request
	if err := json.Unmarshal(line, &req); err != nil {
		return nil // the rest of a line whose beginning went to an earlier connection
	}
	reply, err := s.handle(&req)
	if err != nil {
		reply.Error = err.Error()
	}
	reply.ID = req.ID
	out, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	_, err = port.Write(append(out, '\n'))
	return err
}

func (s *server) handle(req *wire.Request) (reply wire.Reply, err error) {
	switch req.Op {
	case wire.OpPing:
	case wire.OpDisks:
		reply.Disks, err = disks()
	case wire.OpErrors:
		reply.Lines, err = ioErrors()
	case wire.OpDiscard:
		err = s.discard(req)
	case wire.OpSum:
		reply.Sum, err = sum(req)
	case wire.OpPowerOff:
		powerOff()
	default:
		return s.handleWriter(req)
	}
	return reply, err
}

// handleWriter serves the requests that concern a disk's writer and its account.
func (s *server) handleWriter(req *wire.Request) (reply wire.Reply, err error) {
	w := s.writers[req.Disk]
	if w == nil {
		w = newWriter(req.Disk)
		s.writers[req.Disk] = w
	}
	switch req.Op {
	case wire.OpFill:
		err = w.fill(req.First, req.Blocks)
	case wire.OpStart:
		err = w.start(req.First, req.Blocks)
	case wire.OpStop:
		reply.Progress = w.stop()
	case wire.OpProgress:
		reply.Progress = w.progress()
	case wire.OpVerify:
		reply.Lines, err = w.verify()
	case wire.OpAccount:
		reply.Account = w.snapshot()
	default:
		err = fmt.Errorf("unknown request %q", req.Op)
	}
	return reply, err
}

func (s *server) discard(req *wire.Request) error {
	if err := discard(req.Disk, req.First, req.Blocks); err != nil {
		return err
	}
	if w := s.writers[req.Disk]; w != nil {
		w.forget(req.First, req.First+req.Blocks)
	}
	return nil
}
