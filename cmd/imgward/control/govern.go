// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"imgward/guard"
	"imgward/guard/policy"
)

// PolicyFile is where a view's policy comes from.
type PolicyFile interface {
	// Reload reads the file again and takes it over, whole or not at all, and says whether another policy holds now.
	Reload(context.Context) (changed bool, err error)
}

// EventPolicyRejected is published when a policy file cannot be used; Reason says why. The one before holds on.
const EventPolicyRejected guard.EventType = "policy-rejected"

// AllowRequest asks for an exception.
type AllowRequest struct {
	Path    string     `json:"path"` // relative to the view
	Ops     policy.Ops `json:"ops"`
	Seconds float64    `json:"seconds"` // how long it holds
	Once    bool       `json:"once"`    // for a single command
	Reason  string     `json:"reason"`
}

// ExceptionLine is an exception that holds.
type ExceptionLine struct {
	Type string `json:"type"` // "exception"
	guard.Exception
}

// Policy answers with the policy in force.
type Policy struct {
	Type    string `json:"type"` // "policy"
	Source  string `json:"source"`
	Text    string `json:"text,omitempty"` // TOML, with nothing left to defaults
	Changed bool   `json:"changed"`        // by this reload
}

// maxBody is the longest request, in bytes.
const maxBody = 64 << 10

// govern adds what changes how a view is guarded, and the metrics.
func (s *Server) govern(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/exceptions", s.exceptions)
	mux.HandleFunc("POST /v1/allow", s.allow)
	mux.HandleFunc("DELETE /v1/exceptions/{id}", s.revoke)
	mux.HandleFunc("GET /v1/policy", s.policy)
	mux.HandleFunc("POST /v1/policy/reload", s.reload)
	mux.HandleFunc("POST /v1/policy/check", s.tryPolicy)
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
}

func (s *Server) exceptions(w http.ResponseWriter, _ *http.Request) {
	for _, e := range s.Guard.Exceptions() {
		write(w, ExceptionLine{"exception", e})
	}
}

// allow grants an exception to the user who asks. That is root, so his login uid and terminal are what tells him apart;
// the guard finds them by the peer's pid, which the kernel vouches for.
func (s *Server) allow(w http.ResponseWriter, r *http.Request) {
	var a AllowRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&a); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("the request is not understood: %w", err))
		return
	}
	f, err := s.FS.Resolve(a.Path)
	if err == nil && f.Mode == unix.S_IFDIR {
		err = fmt.Errorf("%s is a directory: an exception is for one image", named(a.Path))
	}
	if err != nil {
		fail(w, http.StatusNotFound, err)
		return
	}
	e, err := s.grant(r, &a, f.ID, f.Birth)
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	write(w, ExceptionLine{"exception", e})
}

func (s *Server) grant(r *http.Request, a *AllowRequest, image guard.ID, birth guard.Birth) (guard.Exception, error) {
	by := r.Context().Value(peerKey{}).(unix.Ucred) // onlyRoot has seen that it is there
	e := guard.Exception{
		Image: image, Birth: birth, Path: a.Path, Ops: a.Ops, UID: by.Uid, Reason: a.Reason, Once: a.Once,
		Expires: time.Now().Add(time.Duration(min(a.Seconds, maxSeconds) * float64(time.Second))),
	}
	return s.Guard.Allow(e, int(by.Pid))
}

// maxSeconds is beyond guard.MaxException, and far from where a time.Duration overflows.
const maxSeconds = 1e6

func (s *Server) revoke(w http.ResponseWriter, r *http.Request) { s.revoked(w, r) }

// revoked says whether that was done; otherwise it has answered why not.
func (s *Server) revoked(w http.ResponseWriter, r *http.Request) bool {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("%q is not the number of an exception", r.PathValue("id")))
		return false
	}
	if !s.Guard.Revoke(id) {
		fail(w, http.StatusNotFound, fmt.Errorf("there is no exception %d (any more)", id))
		return false
	}
	return true
}

func (s *Server) policy(w http.ResponseWriter, _ *http.Request) {
	writePolicy(w, s.Guard.Policy(), false)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	changed, err := s.Policy.Reload(r.Context())
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err)
		return
	}
	writePolicy(w, s.Guard.Policy(), changed)
}

func writePolicy(w http.ResponseWriter, p *policy.Policy, changed bool) {
	var text bytes.Buffer
	_ = p.Describe(&text) // memory takes everything
	write(w, Policy{Type: "policy", Source: p.Source, Text: text.String(), Changed: changed})
}
