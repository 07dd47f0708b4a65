// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"path/filepath"
	"testing"

	"imgward/fs/keeper"
)

// TestMakeRoomAgain: a worker that could not tell its keeper goes on, says so, and makes room when it is asked again.
func TestMakeRoomAgain(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify.sock")
	t.Setenv("NOTIFY_SOCKET", socket)
	client, err := keeper.Connect(false)
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{keeper: client, leave: make(chan struct{})}
	if err := w.makeRoom(""); err == nil {
		t.Error("nobody was told, and that is no error")
	}
	l, err := net.ListenPacket("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := w.makeRoom(""); err != nil {
		t.Fatal(err)
	}
	<-w.leave
}
