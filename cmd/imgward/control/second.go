// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/layers"
	"imgward/guard/second"
)

// SecondName is what the second layer's daemon is asked by, in the place of a view's mountpoint. No mountpoint escapes to it.
const SecondName = "@guard"

// SecondRuns says whether the second layer's daemon lives: its worker, or its keeper, which starts the next one.
func SecondRuns() bool {
	c, err := net.Dial("unix", Socket(SecondName))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Second describes the second layer and its daemon.
type Second struct {
	Type       string    `json:"type"` // "guard"
	PID        int       `json:"pid"`  // of the worker
	KeeperPID  int       `json:"keeper_pid"`
	Version    string    `json:"version"`
	Generation uint64    `json:"generation"`
	Takeovers  uint64    `json:"takeovers"`
	Since      time.Time `json:"since"`
	LastPause  float64   `json:"last_pause_seconds"`
	Policy     string    `json:"policy"` // where the policy in force comes from
	// Images are declared to be in use, and Declared is how many seconds that took the last time.
	Images   int      `json:"images"`
	ByMount  bool     `json:"by_mount,omitempty"` // a mount started it: the last umount ends it, if no image is in use
	Declared float64  `json:"declare_seconds"`
	Warnings []string `json:"warnings,omitempty"`
}

// LayerLine is what a part of the second layer does.
type LayerLine struct {
	Type string `json:"type"` // "layer"
	second.Status
}

// HoldLine is an image that a part of the second layer protects.
type HoldLine struct {
	Type  string `json:"type"` // "hold"
	Layer string `json:"layer"`
	second.Hold
}

// SecondServer answers for the second layer.
type SecondServer struct {
	Guard  *guard.Guard
	Policy PolicyFile
	Driver *second.Driver
	// Describe fills in what the daemon knows of itself.
	Describe func() Second
	Upgrade  func(ctx context.Context, binary string) error
	// Stop ends the second layer, and leaves nothing of it.
	Stop func()
	// Stay has it stay when the last view ends.
	Stay func() error
}

// Serve answers until the listener is closed.
func (s *SecondServer) Serve(l *net.UnixListener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/holds", s.holds)
	mux.HandleFunc("GET /v1/check", s.check)
	mux.HandleFunc("POST /v1/allow", s.allow)
	mux.HandleFunc("POST /v1/apply", func(w http.ResponseWriter, r *http.Request) { s.apply(w, r) })
	mux.HandleFunc("POST /v1/stay", s.stay)
	mux.HandleFunc("POST /v1/stop", func(http.ResponseWriter, *http.Request) { s.Stop() })
	shared := s.shared()
	mux.HandleFunc("GET /v1/events", shared.events)
	mux.HandleFunc("GET /v1/exceptions", shared.exceptions)
	mux.HandleFunc("DELETE /v1/exceptions/{id}", s.revoke)
	mux.HandleFunc("GET /v1/policy", shared.policy)
	mux.HandleFunc("POST /v1/policy/reload", shared.reload)
	mux.HandleFunc("POST /v1/upgrade", shared.upgrade)
	return serve(mux, l)
}

// shared has the answers that are the same for a view.
func (s *SecondServer) shared() *Server {
	return &Server{Guard: s.Guard, Policy: s.Policy, Upgrade: s.Upgrade}
}

func (s *SecondServer) status(w http.ResponseWriter, r *http.Request) {
	d := s.Describe()
	d.Type, d.PID, d.Policy = "guard", os.Getpid(), s.Guard.Policy().Source
	images, took := s.Driver.Declared()
	d.Images, d.Declared = images, took.Seconds()
	write(w, d)
	for _, l := range s.Driver.Status() {
		holds := l.Holds
		l.Holds = nil
		write(w, LayerLine{"layer", l})
		for _, h := range holds {
			write(w, HoldLine{"hold", l.Layer, h})
		}
	}
	s.shared().exceptions(w, r)
}

// holds lists what is held of the image at a path, of the disk that it is a partition of, and of its partitions.
func (s *SecondServer) holds(w http.ResponseWriter, r *http.Request) {
	id, _, err := located(r.URL.Query().Get("path"))
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	for _, h := range s.holding(id) {
		write(w, h)
	}
}

func (s *SecondServer) holding(id guard.ID) (list []HoldLine) {
	stack := layers.Stack{}
	disk := func(id guard.ID) guard.ID {
		if d, ok := stack.Disk(layers.ID(id)); ok {
			return guard.ID(d)
		}
		return id
	}
	for _, l := range s.Driver.Status() {
		for _, h := range l.Holds {
			if h.ID == id || h.Left == "" && (disk(h.ID) == id || h.ID == disk(id)) {
				list = append(list, HoldLine{"hold", l.Layer, h})
			}
		}
	}
	return list
}

// located is what an absolute path leads to here.
func located(path string) (id guard.ID, birth guard.Birth, err error) {
	if !filepath.IsAbs(path) {
		return id, birth, fmt.Errorf("%q is no absolute path", path)
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return id, birth, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return id, birth, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return guard.StatID(&st), guard.BirthOf(fd), nil
	case unix.S_IFBLK:
		return guard.StatID(&st), birth, nil
	}
	return id, birth, fmt.Errorf("%s is neither a file nor a block device", path)
}

func (s *SecondServer) allow(w http.ResponseWriter, r *http.Request) {
	var a AllowRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&a); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("the request is not understood: %w", err))
		return
	}
	id, birth, err := located(a.Path)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	if a.Once && id.Dev == guard.BlockDevice {
		fail(w, http.StatusBadRequest, errors.New("--once: nobody sees who uses a block device; say for how long with --for"))
		return
	}
	e, err := s.shared().grant(r, &a, id, birth)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	if s.apply(w, r) {
		write(w, ExceptionLine{"exception", e})
	}
}

func (s *SecondServer) revoke(w http.ResponseWriter, r *http.Request) {
	if s.shared().revoked(w, r) {
		s.apply(w, r)
	}
}

// apply waits until the layers know of the exceptions that hold: whoever asked for one uses it next.
func (s *SecondServer) apply(w http.ResponseWriter, r *http.Request) bool {
	ctx, cancel := context.WithTimeout(r.Context(), patience/2)
	defer cancel()
	if err := s.Driver.Apply(ctx); err != nil {
		fail(w, http.StatusServiceUnavailable, errors.New("that is noted, but not in force yet; it will be within seconds"))
		return false
	}
	return true
}

// check judges an operation by the contract, and says what there is to keep to it.
func (s *SecondServer) check(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	op, err := ParseOp(r.URL.Query().Get("op"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	id, _, err := located(path)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	peer := r.Context().Value(peerKey{}).(unix.Ucred) // onlyRoot has seen that it is there
	v := s.Guard.Check(r.Context(), &guard.Request{
		Op: op, Image: id, TID: int(peer.Pid), UID: peer.Uid, Path: func() string { return path },
		Open: guard.Descriptor(func() (*os.File, error) { return guard.HostDirect{}.Open(path) }),
	})
	answer := Verdict{Type: "verdict", Op: op, Path: path, Allowed: v.Allowed, Audit: v.Audit, Exception: v.Exception, Reason: v.Reason, Uses: v.Uses}
	if !v.Allowed {
		s.qualify(&answer, id)
	}
	write(w, answer)
}

// qualify says how far a refusal by the contract is kept: a claim refuses those who want a device for themselves.
func (s *SecondServer) qualify(v *Verdict, id guard.ID) {
	var by []string
	for _, h := range s.holding(id) {
		if h.Left == "" {
			by = append(by, h.Layer)
		}
	}
	switch {
	case len(by) == 0:
		v.Allowed = true
		v.Reason = "nothing protects it, though " + v.Reason
	case strings.Join(by, "") == "claims":
		v.Reason += "; a claim refuses mkfs, wipefs, mkswap, pvcreate and mount, but not dd"
	}
}

// Apply has the second layer look at what there is now, such as a view that has been mounted, and waits until it has.
func (c *Client) Apply(ctx context.Context) error {
	return c.Post(ctx, "apply", struct{}{}, func([]byte) error { return nil })
}

func (s *SecondServer) stay(w http.ResponseWriter, _ *http.Request) {
	if err := s.Stay(); err != nil {
		fail(w, http.StatusInternalServerError, err)
	}
}

// Stay has the second layer stay when the last view ends: somebody wants it by itself.
func (c *Client) Stay(ctx context.Context) error {
	return c.Post(ctx, "stay", struct{}{}, func([]byte) error { return nil })
}

// Stop ends the second layer.
func (c *Client) Stop(ctx context.Context) error {
	return c.Post(ctx, "stop", struct{}{}, func([]byte) error { return nil })
}
