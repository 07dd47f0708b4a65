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
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	viewfs "imgward/fs"
	"imgward/guard"
)

// Server answers for one view.
type Server struct {
	Mountpoint, Backing, Version string
	KeeperPID                    func() int64
	FS                           *viewfs.FS
	Guard                        *guard.Guard
	// Warnings adds what the daemon itself has to say.
	Warnings func() []string
	// Reachable says whether the view's mountpoint leads to the view.
	Reachable func() bool
	Policy    PolicyFile
	// Host and Tree are the guard's way to files, and the backing tree's root; for trying a policy.
	Host guard.Host
	Tree *os.File
	// Device is the worker's descriptor of the FUSE connection.
	Device int
	// Upgrade lets another program take over.
	Upgrade func(ctx context.Context, binary string) error
	// Ending is called before the view is unmounted on purpose.
	Ending func()
	// Metrics answers /metrics.
	Metrics http.Handler
}

// Listen makes the control socket, 0600 in a 0700 directory.
func Listen(path string) (*net.UnixListener, error) {
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, os.Chmod(path, 0o600)
}

// Serve answers until the listener is closed.
func (s *Server) Serve(l *net.UnixListener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/elsewhere", s.elsewhere)
	mux.HandleFunc("GET /v1/who", s.who)
	mux.HandleFunc("GET /v1/check", s.check)
	mux.HandleFunc("GET /v1/holders", s.holders)
	mux.HandleFunc("GET /v1/vmms", s.vmms)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("POST /v1/upgrade", s.upgrade)
	mux.HandleFunc("POST /v1/ending", s.ending)
	s.govern(mux)
	return serve(mux, l)
}

func serve(mux *http.ServeMux, l *net.UnixListener) error {
	srv := &http.Server{Handler: onlyRoot(mux), ReadHeaderTimeout: 10 * time.Second, ConnContext: withPeer}
	err := srv.Serve(l)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

type peerKey struct{}

// withPeer notes who is at the other end of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, *cred)
}

// onlyRoot turns everybody else away, should the socket's mode ever be changed.
func onlyRoot(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, ok := r.Context().Value(peerKey{}).(unix.Ucred)
		if !ok || cred.Uid != 0 {
			w.WriteHeader(http.StatusForbidden)
			write(w, Error{Type: "error", Message: "only root may ask"})
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		next.ServeHTTP(w, r)
	})
}

func write(w http.ResponseWriter, objects ...any) {
	enc := json.NewEncoder(w)
	for _, o := range objects {
		if enc.Encode(o) != nil {
			return // the reader has gone
		}
	}
}

func fail(w http.ResponseWriter, status int, err error) {
	w.WriteHeader(status)
	write(w, Error{Type: "error", Message: err.Error()})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, policy := s.FS.Stats(), s.Guard.Policy()
	unprotected, reachable := policy.Unprotected(&policy.Default), s.Reachable()
	if !reachable {
		unprotected = "the mountpoint does not lead to the view"
	}
	write(w, View{
		Type: "view", Mountpoint: s.Mountpoint, Backing: s.Backing, Version: s.Version,
		PID: os.Getpid(), KeeperPID: int(s.KeeperPID()), Passthrough: s.FS.Passthrough(),
		Generation: st.Generation, Takeovers: st.Generation - 1,
		Mounted: st.Mounted, Serving: st.Serving, LastPause: st.LastPause.Seconds(), Refusals: st.Refusals,
		Nodes: st.Nodes, Handles: st.Handles, Descriptors: st.Descriptors,
		OpenPassed: st.Passed, OpenDaemon: st.Daemon, Policy: policy.Source, Warnings: s.Warnings(),
		TreeFD: int(s.Tree.Fd()), DeviceFD: s.Device, Root: s.FS.Root(), Reachable: reachable,
		Protected: unprotected == "", Unprotected: unprotected,
	})
	s.exceptions(w, r)
	for _, img := range s.FS.Images(r.Context()) {
		write(w, Image{
			Type: "image", Path: img.Path, Uses: img.Uses, Unprotected: policy.Unprotected(policy.For(img.Path)), Beside: img.Beside,
		})
	}
}

// elsewhere lists the images in use that are not in the view: this guard's evidence is of the whole host.
func (s *Server) elsewhere(w http.ResponseWriter, r *http.Request) {
	for _, img := range s.FS.Elsewhere(r.Context()) {
		write(w, Image{Type: "elsewhere", Path: img.Path, Uses: img.Uses, Block: img.ID.Dev == guard.BlockDevice})
	}
}

func (s *Server) who(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	f, err := s.FS.Resolve(path)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	write(w, Image{Type: "image", Path: path, Uses: s.FS.Who(r.Context(), f.ID, path)})
}

func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	op, err := ParseOp(r.URL.Query().Get("op"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	f, err := s.FS.Resolve(path)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	peer := r.Context().Value(peerKey{}).(unix.Ucred) // onlyRoot has seen that it is there
	by := guard.Process{PID: int(peer.Pid), UID: peer.Uid}
	answer := Verdict{Type: "verdict", Op: op, Path: path}
	var v guard.Verdict
	switch {
	case f.Mode != unix.S_IFDIR:
		v = s.FS.Check(r.Context(), f.ID, path, op, by)
	case op == guard.OpRename || op == guard.OpRenameDir:
		v, answer.Below = s.FS.CheckBelow(r.Context(), path, by)
	default:
		fail(w, http.StatusBadRequest, fmt.Errorf("%s is a directory: it can be renamed, no more", named(path)))
		return
	}
	answer.Allowed, answer.Audit, answer.Exception, answer.Reason, answer.Uses = v.Allowed, v.Audit, v.Exception, v.Reason, v.Uses
	write(w, answer)
}

// named is a path below the view in a sentence.
func named(path string) string {
	if path == "" {
		return "the view's root"
	}
	return path
}

// ParseOp reads the name of an operation, as exceptions and events have it.
func ParseOp(s string) (guard.Op, error) {
	if op := guard.Op(s); slices.Contains(guard.Ops(), op) {
		return op, nil
	}
	return "", fmt.Errorf("unknown operation %q: it is one of %s", s, OpNames())
}

// OpNames lists the operations for people.
func OpNames() string {
	var names []string
	for _, op := range guard.Ops() {
		names = append(names, string(op))
	}
	return strings.Join(names, ", ")
}

func (s *Server) holders(w http.ResponseWriter, _ *http.Request) {
	for _, h := range s.FS.Holders() {
		write(w, Holder{Type: "holder", PID: h.PID, Comm: h.Comm, Class: h.Class, Path: h.Path, Write: h.Write})
	}
}

// vmms lists the VMMs that are on no list of the policy.
func (s *Server) vmms(w http.ResponseWriter, r *http.Request) {
	list, err := s.Guard.UnlistedVMMs(r.Context())
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	for _, vmm := range list {
		write(w, VMM{Type: "vmm", PID: vmm.PID, Program: vmm.Program, Images: s.FS.PathsOf(vmm.Files)})
	}
}

// events sends the history (with after=ID, what came after that event) and, with follow=1, what happens from then on.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	follow := query.Get("follow") == "1"
	var after uint64
	if s := query.Get("after"); s != "" {
		var err error
		if after, err = strconv.ParseUint(s, 10, 64); err != nil {
			fail(w, http.StatusBadRequest, fmt.Errorf("%q is not the number of an event", s))
			return
		}
	}
	past, next := s.Guard.Events().Subscribe(after)
	defer next.Close()
	for _, e := range past {
		write(w, e)
	}
	if !follow {
		return
	}
	answer := http.NewResponseController(w)
	for {
		if answer.Flush() != nil {
			return
		}
		select {
		case e, ok := <-next.C:
			if !ok {
				return
			}
			write(w, e)
		case <-r.Context().Done():
			return
		}
	}
}
