// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgward/test/conformance/target"
	"imgward/test/need"
)

// TestAtimeOptions: mount(8)'s options about times of access do what they say.
func TestAtimeOptions(t *testing.T) {
	need.Have(t, need.View()...)
	for option, moves := range map[string]bool{"strictatime": true, "noatime": false} {
		for _, peer := range []target.Peer{target.View, target.ViewNoPassthrough} {
			t.Run(option+"/"+peer.Name, func(t *testing.T) {
				work := workDir(t)
				tree := filepath.Join(work, "tree")
				if err := os.Mkdir(tree, 0o755); err != nil {
					t.Fatal(err)
				}
				command := peer.Command
				peer.Command = func(tools, backing, mountpoint string) []string {
					words := command(tools, backing, mountpoint)
					return append([]string{words[0], words[1], "-o", option}, words[2:]...)
				}
				mount := startPeer(t, peer, work, tree)
				name := filepath.Join(mount.Dir, "f")
				if err := os.WriteFile(name, []byte("content"), 0o644); err != nil {
					t.Fatal(err)
				}
				var before, after unix.Stat_t
				if err := unix.Stat(filepath.Join(tree, "f"), &before); err != nil {
					t.Fatal(err)
				}
				if err := waitPast(time.Unix(before.Ctim.Unix())); err != nil {
					t.Fatal(err)
				}
				if _, err := os.ReadFile(name); err != nil {
					t.Fatal(err)
				}
				if err := unix.Stat(filepath.Join(tree, "f"), &after); err != nil {
					t.Fatal(err)
				}
				if moved := after.Atim != before.Atim; moved != moves {
					t.Errorf("atime has moved: %v, want %v", moved, moves)
				}
			})
		}
	}
}

// TestDirectTail: a file that does not end with a whole block is written by O_DIRECT, as GNU dd and others do it, whatever they
// are called.
func TestDirectTail(t *testing.T) {
	dd, err := exec.LookPath("dd")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dd)
	if err != nil {
		t.Fatal(err)
	}
	renamed := filepath.Join(t.TempDir(), "qemu-img")
	if err := os.WriteFile(renamed, text, 0o755); err != nil {
		t.Fatal(err)
	}
	atPlaces(t, func(t *testing.T, p *place) {
		dir := freshDir(t, p)
		odd := bytes.Repeat([]byte("0123456789abc"), 20001)
		from, to := filepath.Join(dir, "odd"), filepath.Join(dir, "new.img")
		if err := os.WriteFile(from, odd, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{dd, dd + " conv=notrunc", renamed} {
			args := append(strings.Fields(command), "if="+from, "of="+to, "bs=64k", "iflag=direct", "oflag=direct")
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, odd) {
				t.Errorf("%d bytes were written, want %d (%v)", len(got), len(odd), err)
			}
		}
	})
}
