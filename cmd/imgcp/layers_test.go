// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/need"
)

// TestInUseByLayers: a running machine has one layer of a disk, a copy goes onto another that shares bytes with it.
func TestInUseByLayers(t *testing.T) {
	need.Have(t, need.Root, need.Mounting, need.Loops)
	dir := t.TempDir()
	image, disk := dir+"/a.img", dir+"/vm-disk2.img"
	for path, b := range map[string][]byte{image: bytes.Repeat([]byte("new "), 64<<10), disk: bytes.Repeat([]byte("live"), 2<<20)} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loop := tool(t, "losetup", "--find", "--show", "--partscan", disk)
	t.Cleanup(func() { tool(t, "losetup", "--detach", loop) })
	tool(t, "addpart", loop, "1", "2048", "2048")
	tool(t, "addpart", loop, "2", "4096", "2048")
	for _, c := range []struct {
		vm, onto string
		refused  bool
	}{
		{disk, loop, true}, {disk, loop + "p1", true},
		{loop, loop, true}, {loop, disk, true}, {loop, loop + "p1", true},
		{loop + "p1", loop, true}, {loop + "p1", disk, true}, {loop + "p1", loop + "p1", true},
		{loop + "p1", loop + "p2", false},
	} {
		t.Run(filepath.Base(c.vm)+" onto "+filepath.Base(c.onto), func(t *testing.T) {
			machine(t, c.vm)
			for _, args := range [][]string{
				{"--yes", "--overwrite", image, c.onto},
				{"--yes", "--overwrite=in-place", image, c.onto},
				{"dd", "--yes", "--overwrite", "if=" + image, "of=" + c.onto},
				{"dd", "--yes", "--overwrite", "if=" + image, "of=" + c.onto, "conv=notrunc"},
				{image, c.onto}, // in use comes first: to overwrite would not help
				{"dd", "if=" + image, "of=" + c.onto},
			} {
				asked := strings.Contains(strings.Join(args, " "), "--overwrite")
				want := exitInUse
				switch {
				case !c.refused && asked:
					want = exitDone
				case !c.refused:
					want = exitExists
				}
				cmd := exec.Command("imgcp", args...) // TestMain put it there
				words, _ := cmd.CombinedOutput()
				if got := cmd.ProcessState.ExitCode(); got != want {
					t.Errorf("imgcp %q: %d (%s), want %d", args, got, words, want)
				}
				if !c.refused {
					continue
				}
				if bytes.Contains(words, []byte("to overwrite it")) || bytes.Contains(words, []byte("ext free name: /dev")) {
					t.Errorf("imgcp %q: %s: a hint that does not help", args, words)
				}
				if b, err := os.ReadFile(disk); err != nil || bytes.Contains(b, []byte("new ")) {
					t.Fatalf("imgcp %q: the disk of a running machine was overwritten (%v)", args, err)
				}
			}
		})
	}
}

// TestStandardOutput: what the shell connected it to is a destination like any other.
func TestStandardOutput(t *testing.T) {
	need.Have(t, need.Root, need.Mounting, need.Loops)
	dir := t.TempDir()
	image, disk, idle := dir+"/a.img", dir+"/vm-disk2.img", dir+"/idle.img"
	for path, b := range map[string]string{image: "new ", disk: "live", idle: "idle"} {
		if err := os.WriteFile(path, bytes.Repeat([]byte(b), 512<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loop := tool(t, "losetup", "--find", "--show", disk)
	t.Cleanup(func() { tool(t, "losetup", "--detach", loop) })
	machine(t, disk)
	for _, c := range []struct {
		onto string
		code int
	}{{disk, exitInUse}, {loop, exitInUse}, {image, exitFailed}, {idle, exitDone}} {
		for _, args := range [][]string{{image, "-"}, {"dd", "if=" + image}} {
			if c.onto == image && args[0] == "dd" {
				continue // within one file dd may move bytes about
			}
			out, err := os.OpenFile(c.onto, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			var words bytes.Buffer
			cmd := exec.Command("imgcp", args...)
			cmd.Stdout, cmd.Stderr = out, &words
			_ = cmd.Run()
			out.Close()
			if got := cmd.ProcessState.ExitCode(); got != c.code {
				t.Errorf("imgcp %q 1<>%s: %d (%s), want %d", args, c.onto, got, words.String(), c.code)
			}
		}
	}
	for path, want := range map[string]string{image: "new ", disk: "live", idle: "new "} {
		if b, err := os.ReadFile(path); err != nil || string(b[:4]) != want {
			t.Errorf("%s holds %q, want %q (%v)", path, b[:4], want, err)
		}
	}
}

// machine runs a QEMU with a disk, paused before its first instruction.
func machine(t *testing.T, disk string) {
	t.Helper()
	driver := "file"
	if strings.HasPrefix(disk, "/dev/") {
		driver = "host_device"
	}
	cmd := exec.Command("qemu-system-x86_64", "-nodefaults", "-display", "none", "-qmp", "stdio", "-m", "16", "-S",
		"-blockdev", "driver=raw,node-name=a,file.driver="+driver+",file.filename="+disk, "-device", "virtio-blk-pci,drive=a")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := in.Write([]byte(`{"execute": "qmp_capabilities"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); !strings.Contains(lines.Text(), `"return"`); {
		if !lines.Scan() {
			t.Fatal("QEMU did not start")
		}
	}
}

func tool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
