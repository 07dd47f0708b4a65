// SPDX-License-Identifier: Apache-2.0

// Package libvirtd asks libvirt's daemon, by its own protocol, about the domains that are to be copied, and has it do to
// them what a copy takes. It is the only place where go-libvirt is imported.
//
// Every call has a time limit: a daemon that hangs must not keep a domain half done for ever. A call that only asks is
// repeated once when the daemon was restarted under it; one that changes something is not, for it may have been done: the
// caller looks at the domain again.
package libvirtd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"imgward/copy/internal/sys"
)

// Default is the URI of the host's own QEMU driver.
const Default = "qemu:///system"

// How long calls may take. libvirt waits 30 s for another job of the domain; a snapshot with a guest agent that thaws slowly
// takes more.
const (
	askLimit    = 45 * time.Second
	changeLimit = 3 * time.Minute
	dialLimit   = 10 * time.Second
	// againLimit is how long a daemon that was there may be away: it is being restarted.
	againLimit = time.Minute
	againPause = 200 * time.Millisecond
)

// Errors that callers look for.
var (
	ErrNoDomain = errors.New("there is no such domain")
	// ErrNotReady: a block job cannot be ended yet.
	ErrNotReady = errors.New("the block job is not ready")
	// ErrInvalid: not in the state that the domain is in.
	ErrInvalid = errors.New("the domain's state does not allow it")
	// ErrBusy: another job of the domain did not end in the 30 s that libvirt waits.
	ErrBusy = errors.New("another job of the domain is under way")
	// ErrNoBackup: the domain has no backup job.
	ErrNoBackup = errors.New("there is no backup job")
	ErrTimeout  = errors.New("libvirt does not answer")
	// ErrLost: the daemon ended during the call, which may have been done.
	ErrLost = errors.New("the connection to libvirt was lost")
)

// Conn is a connection that comes back when the daemon does. It may be used by several goroutines.
type Conn struct {
	uri string

	mu   sync.Mutex
	link *link
	was  bool // it has been up
}

// link is one connection under way.
type link struct {
	*libvirt.Libvirt
	conn net.Conn // nil where go-libvirt has made it
}

// New is a connection that is made by the first call. uri is as for virsh -c; "": LIBVIRT_DEFAULT_URI, or Default.
func New(uri string) *Conn {
	if uri == "" {
		uri = os.Getenv("LIBVIRT_DEFAULT_URI")
	}
	if uri == "" {
		uri = Default
	}
	return &Conn{uri: uri}
}

// URI is where it leads.
func (c *Conn) URI() string { return c.uri }

// Close ends the connection.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link.close()
	c.link = nil
}

// ask makes a call that changes nothing.
func (c *Conn) ask(ctx context.Context, what string, do func(*libvirt.Libvirt) error) error {
	err := c.call(ctx, askLimit, what, do)
	if errors.Is(err, ErrLost) {
		err = c.call(ctx, askLimit, what, do)
	}
	return err
}

// change makes a call that changes something.
func (c *Conn) change(ctx context.Context, what string, do func(*libvirt.Libvirt) error) error {
	return c.call(ctx, changeLimit, what, do)
}

func (c *Conn) call(ctx context.Context, limit time.Duration, what string, do func(*libvirt.Libvirt) error) error {
	l, err := c.connected(ctx)
	if err != nil {
		return fmt.Errorf("%s: connect to libvirt (%s): %w", what, c.uri, err)
	}
	done := make(chan error, 1)
	go func() { done <- do(l.Libvirt) }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err = <-done:
		if lost(err) {
			c.drop(l)
			err = errors.Join(ErrLost, err)
		}
	case <-ctx.Done():
		c.drop(l)
		err = context.Cause(ctx)
	case <-timer.C:
		c.drop(l)
		err = fmt.Errorf("%w for %v", ErrTimeout, limit)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, kind(err))
	}
	return nil
}

func lost(err error) bool {
	return errors.Is(err, libvirt.ErrInterrupted) || errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL)
}

// kind adds what callers look for to an error of libvirt's.
func kind(err error) error {
	var e libvirt.Error
	if !errors.As(err, &e) {
		return err
	}
	switch libvirt.ErrorNumber(e.Code) {
	case libvirt.ErrNoDomain:
		return fmt.Errorf("%w (%w)", ErrNoDomain, err)
	case libvirt.ErrOperationTimeout:
		return fmt.Errorf("%w (%w)", ErrBusy, err)
	case libvirt.ErrNoDomainBackup:
		return fmt.Errorf("%w (%w)", ErrNoBackup, err)
	case libvirt.ErrBlockCopyActive:
		return fmt.Errorf("%w (%w)", ErrNotReady, err)
	case libvirt.ErrOperationInvalid:
		return fmt.Errorf("%w (%w)", ErrInvalid, err)
	}
	return err
}

// connected returns the connection, made anew if there is none.
func (c *Conn) connected(ctx context.Context) (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil && c.link.IsConnected() {
		return c.link, nil
	}
	c.link.close()
	c.link = nil
	for end := time.Now().Add(againLimit); ; {
		l, err := connect(ctx, c.uri)
		if err == nil {
			c.link, c.was = l, true
			return l, nil
		}
		if !c.was || time.Now().After(end) {
			return nil, err
		}
		if err := sys.Sleep(ctx, againPause); err != nil {
			return nil, err
		}
	}
}

// drop gives up a connection: what waits for an answer there gets none.
func (c *Conn) drop(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.close()
	if c.link == l {
		c.link = nil
	}
}

func (l *link) close() {
	switch {
	case l == nil:
	case l.conn != nil:
		l.conn.Close()
	default:
		go func() { _ = l.Disconnect() }() // it asks the other side first, who may not answer
	}
}

func connect(ctx context.Context, uri string) (*link, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	type result struct {
		l   *link
		err error
	}
	done := make(chan result, 1)
	var conn net.Conn
	if local := socketOf(u); local != "" {
		d := net.Dialer{Timeout: dialLimit}
		if conn, err = d.DialContext(ctx, "unix", local); err != nil {
			return nil, err
		}
	}
	go func() {
		if conn != nil {
			l := libvirt.NewWithDialer(dialers.NewAlreadyConnected(conn))
			done <- result{&link{l, conn}, l.ConnectToURI(libvirt.RemoteURI(u))}
			return
		}
		l, err := libvirt.ConnectToURI(u)
		done <- result{&link{Libvirt: l}, err}
	}()
	err = ErrTimeout
	select {
	case r := <-done:
		if err = r.err; err == nil {
			return r.l, nil
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(askLimit):
	}
	if conn != nil {
		conn.Close()
	}
	return nil, err
}

// socketOf is the socket that a URI of this host means; "" for another host. Where libvirt is one daemon for each driver and
// nothing stands in for the single one, it is virtqemud's.
func socketOf(u *url.URL) string {
	if u.Host != "" || strings.Contains(u.Scheme, "+") && !strings.HasSuffix(u.Scheme, "+unix") {
		return ""
	}
	if s := u.Query().Get("socket"); s != "" {
		return s
	}
	dir := "/run/libvirt"
	if u.Path == "/session" {
		dir = filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "libvirt")
	}
	for _, name := range []string{"libvirt-sock", "virtqemud-sock"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return filepath.Join(dir, "libvirt-sock")
}
