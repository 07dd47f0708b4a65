// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/need"
)

// stopped is a keeper's socket that nobody reads.
func stopped(t *testing.T) (conn int, c *Client) {
	t.Helper()
	need.Have(t, need.Root) // a keeper listens to nobody else
	k := &Keeper{Socket: filepath.Join(t.TempDir(), "notify")}
	if err := k.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(k.conn) })
	return k.conn, client(t, k.Socket)
}

// TestStoppedKeeper: a keeper that does not read holds nobody up for longer than a moment, and when it reads again it gets
// what there is to keep.
func TestStoppedKeeper(t *testing.T) {
	conn, c := stopped(t)
	fd, err := unix.MemfdCreate("kept", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const count = 5000 // net.unix.max_dgram_qlen is hundreds
	for i := range count {
		if err := c.Keep("h"+strconv.Itoa(i), fd); err != nil {
			t.Fatal(err)
		}
	}
	for i := range count - 10 {
		c.Drop("h" + strconv.Itoa(i))
	}
	if !c.Behind() {
		t.Error("a keeper that has not read is not behind")
	}
	var buf buffers
	kept := map[string]bool{}
	for end := time.Now().Add(time.Minute); c.Behind() || len(kept) != 10; {
		if time.Now().After(end) {
			t.Fatalf("a minute after the keeper reads again, it is behind: %v; it has %d", c.Behind(), len(kept))
		}
		msg, fds, err := receive(conn, &buf)
		if err != nil {
			continue
		}
		closeAll(fds)
		_, name, _ := strings.Cut(msg, "FDNAME=")
		if strings.HasPrefix(msg, "FDSTORE=1") {
			kept[name] = true
		} else {
			delete(kept, name)
		}
	}
	for i := count - 10; i < count; i++ {
		if !kept["h"+strconv.Itoa(i)] {
			t.Errorf("h%d is not kept: %v", i, kept)
		}
	}
}

// TestDeadKeeper: while there is no keeper, the view serves on.
func TestDeadKeeper(t *testing.T) {
	conn, c := stopped(t)
	if err := c.Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	unix.Close(conn)
	if err := c.Keep("h1", 0); err != nil {
		t.Error(err)
	}
	c.Drop("h1")
	if c.Behind() {
		t.Error("what is for the next keeper waits for this one")
	}
}

// TestFullStore: systemd drops what is too much and says so to nobody, so the worker counts.
func TestFullStore(t *testing.T) {
	k := &Keeper{Socket: filepath.Join(t.TempDir(), "notify")}
	if err := k.listen(); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(k.conn)
	t.Setenv("NOTIFY_SOCKET", k.Socket)
	t.Setenv("FDSTORE", "3")
	c, err := Connect(true)
	if err != nil {
		t.Fatal(err)
	}
	c.NoteKept(map[string]int{"state": 3})
	for i, want := range []error{nil, nil, ErrFull} {
		if err := c.Keep("h"+strconv.Itoa(i), 0); err != want {
			t.Errorf("descriptor %d: %v, want %v", i, err, want)
		}
	}
	c.Drop("h0")
	if err := c.Keep("h2", 0); err != nil {
		t.Error(err)
	}
}

// TestNotSent: what the service manager was not sent takes no room in its store.
func TestNotSent(t *testing.T) {
	conn, c := stopped(t)
	c.limit, c.names = 1, map[string]bool{}
	if err := c.Keep("a", 1<<30); err == nil { // no descriptor
		t.Fatal("it was sent")
	}
	if err := c.Keep("b", conn); err != nil {
		t.Error(err)
	}
	if err := c.Keep("c", conn); err != ErrFull {
		t.Errorf("%v, want ErrFull", err)
	}
}
