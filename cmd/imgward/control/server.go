package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
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
	Policy   PolicyFile
	// Host and Tree are the guard's way to files, and the backing tree's root; for trying a policy.
	Host guard.Host
	Tree *os.File
	// Upgrade lets another program take over.
	Upgrade func(ctx context.Context, binary string) error
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
	mux.HandleFunc("GET /v1/who", s.who)
	mux.HandleFunc("GET /v1/check", s.check)
	mux.HandleFunc("GET /v1/holders", s.holders)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("POST /v1/upgrade", s.upgrade)
	s.govern(mux)
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
	st := s.FS.Stats()
	write(w, View{
		Type: "view", Mountpoint: s.Mountpoint, Backing: s.Backing, Version: s.Version,
		PID: os.Getpid(), KeeperPID: int(s.KeeperPID()), Passthrough: s.FS.Passthrough(),
		Generation: st.Generation, Takeovers: st.Generation - 1,
		Mounted: st.Mounted, Serving: st.Serving, LastPause: st.LastPause.Seconds(), Refusals: st.Refusals,
		Nodes: st.Nodes, Handles: st.Handles, Descriptors: st.Descriptors,
		OpenPassed: st.Passed, OpenDaemon: st.Daemon, Policy: s.Guard.Policy().Source, Warnings: s.Warnings(),
	})
	s.exceptions(w, r)
	for _, img := range s.FS.Images(r.Context()) {
		write(w, Image{Type: "image", Path: img.Path, Uses: img.Uses})
	}
}

func (s *Server) who(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	f, err := s.FS.Resolve(path)
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	write(w, Image{Type: "image", Path: path, Uses: s.FS.Uses(r.Context(), f.ID)})
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
	v := s.FS.Check(r.Context(), f.ID, path, op, guard.Process{})
	write(w, Verdict{Type: "verdict", Op: op, Path: path, Allowed: v.Allowed, Reason: v.Reason, Uses: v.Uses})
}

// ParseOp accepts the operations that people ask about.
func ParseOp(s string) (guard.Op, error) {
	switch op := guard.Op(s); op {
	case guard.OpTruncate, guard.OpOpenWrite, guard.OpUnlink, guard.OpRename:
		return op, nil
	}
	return "", fmt.Errorf("unknown operation %q: truncate, write, unlink or rename", s)
}

func (s *Server) holders(w http.ResponseWriter, _ *http.Request) {
	for _, h := range s.FS.Holders() {
		write(w, Holder{Type: "holder", PID: h.PID, Comm: h.Comm, Class: h.Class, Path: h.Path, Write: h.Write})
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
