// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/gob"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// env marks a copy of the test binary as an agent; its value is the credentials.
const env = "IMGWARD_CONFORMANCE_AGENT"

// Client is a running agent. It is for one goroutine at a time.
type Client struct {
	cmd  *exec.Cmd
	send *gob.Encoder
	recv chan Reply
	in   *os.File
}

// Start runs this binary again as an agent. The credentials are written "uid", "uid:gid" or "uid:gid,group,group";
// the group is the uid when left out.
func Start(credentials string) (*Client, error) {
	requests, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer requests.Close()
	out, replies, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer replies.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env+"="+credentials)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{requests, replies}
	// An agent that outlives a crashed test would hold the mount busy.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start an agent as %s: %w", credentials, err)
	}
	c := &Client{cmd: cmd, send: gob.NewEncoder(in), recv: make(chan Reply), in: in}
	go c.receive(out)
	return c, nil
}

func (c *Client) receive(out *os.File) {
	defer close(c.recv)
	defer out.Close()
	replies := gob.NewDecoder(out)
	for {
		var r Reply
		if replies.Decode(&r) != nil {
			return
		}
		c.recv <- r
	}
}

// PID is the agent's process id.
func (c *Client) PID() int { return c.cmd.Process.Pid }

// Do runs one operation. An error means that the agent died, or did not answer within the limit: the operation hangs.
func (c *Client) Do(r Request, limit time.Duration) (Reply, error) {
	if err := c.send.Encode(r); err != nil {
		return Reply{}, fmt.Errorf("agent %d: %w", c.PID(), err)
	}
	select {
	case reply, ok := <-c.recv:
		if !ok {
			return Reply{}, fmt.Errorf("agent %d died during %s %s", c.PID(), r.Op, strings.Join(r.Args, " "))
		}
		return reply, nil
	case <-time.After(limit):
		return Reply{}, fmt.Errorf("agent %d: %s %s has not returned in %v", c.PID(), r.Op, strings.Join(r.Args, " "), limit)
	}
}

// Kill ends the agent with SIGKILL and waits for its end, as a lock's owner may die at any moment.
func (c *Client) Kill() {
	c.in.Close()
	c.cmd.Process.Kill()
	for range c.recv {
	}
	c.cmd.Wait()
}
