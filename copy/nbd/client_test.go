// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"imgward/test/need"
)

// serve has qemu-nbd show an image as the export "vda".
func serve(t *testing.T, image, format string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	cmd := exec.Command("qemu-nbd", "-k", socket, "-r", "-t", "-e", "8", "-f", format, "-x", "vda", image)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}

// TestRead reads a disk of data, zeroes and nothing from QEMU's own server.
func TestRead(t *testing.T) {
	need.Have(t, need.Tools("qemu-nbd", "qemu-img", "qemu-io"))
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
	run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", "-c", "write -z 2M 1M", "-c", "write -P 9 63M 1M", image)
	c, err := Dial(t.Context(), serve(t, image, "qcow2"), "vda")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Size() != 64<<20 {
		t.Fatalf("size %d", c.Size())
	}
	data := int64(0)
	b := make([]byte, 1<<20)
	for off := int64(0); off < c.Size(); {
		zero, n, err := c.Zeroes(off, c.Size()-off)
		if err != nil || n <= 0 {
			t.Fatalf("at %d: %d, %v", off, n, err)
		}
		if !zero {
			data += n
		}
		off += n
	}
	if data != 2<<20 {
		t.Errorf("%d bytes are data, want 2 MiB", data)
	}
	for at, want := range map[int64]byte{0: 0, 1 << 20: 7, 2 << 20: 0, 63 << 20: 9} {
		if err := c.Read(b, at); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{want}, len(b))) {
			t.Errorf("at %d: not all %d (%v)", at, want, err)
		}
	}
	if err := c.Read(b, 64<<20); err == nil {
		t.Error("a read behind the end succeeds")
	}
}

// TestHostileServer: whatever the other side sends, there is an error, and no more memory than what was asked for.
func TestHostileServer(t *testing.T) {
	hello := binary.BigEndian.AppendUint64(nil, magic)
	hello = binary.BigEndian.AppendUint64(hello, optMagic)
	for name, says := range map[string][]byte{
		"nothing":         {},
		"no NBD":          []byte("HTTP/1.1 400 Bad Request\r\n\r\n....."),
		"an old protocol": append(bytes.Clone(hello), 0, 0),
		"a giant reply":   append(append(bytes.Clone(hello), 0, 3), append(binary.BigEndian.AppendUint64(nil, replyMagic), 0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff)...),
		"a refusal":       append(append(bytes.Clone(hello), 0, 3), append(binary.BigEndian.AppendUint64(nil, replyMagic), 0, 0, 0, 8, 0x80, 0, 0, 1, 0, 0, 0, 0)...),
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.Write(says)
				conn.(*net.UnixConn).CloseWrite()
				io.Copy(io.Discard, conn)
				conn.Close()
			}()
			if c, err := Dial(t.Context(), socket, "vda"); err == nil {
				c.Close()
				t.Error("accepted")
			}
		})
	}
}
