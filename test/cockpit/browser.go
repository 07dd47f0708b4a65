// SPDX-License-Identifier: Apache-2.0

package cockpit

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// browser is a headless Chromium with one page, spoken to by the DevTools protocol over a pair of pipes
// (--remote-debugging-pipe: descriptors 3 and 4, one JSON message before each NUL).
type browser struct {
	to      io.Writer
	from    *bufio.Reader
	id      int
	session string
	log     string // what Chromium says itself
}

// open starts Chromium on a page; the cleanup ends it. Its files are in dir, which the sandbox removes when all of its
// processes have ended: they write until then.
func open(t *testing.T, dir, url string) *browser {
	t.Helper()
	theirIn, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "chromium.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--user-data-dir="+dir, "--window-size=1100,900", "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "TMPDIR="+harness.Sockets) // where it makes one, whose path may have 107 bytes
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		to.Close()
		from.Close()
	})
	b := &browser{to: to, from: bufio.NewReader(from), log: log.Name()}
	var made struct{ TargetID string }
	b.call(t, "Target.createTarget", map[string]any{"url": url}, &made)
	var attached struct{ SessionID string }
	b.call(t, "Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	return b
}

// call sends a command and reads on to its answer; events are left out.
func (b *browser) call(t *testing.T, method string, params map[string]any, result any) {
	t.Helper()
	b.id++
	message := map[string]any{"id": b.id, "method": method, "params": params}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	sent, err := json.Marshal(message)
	if err == nil {
		_, err = b.to.Write(append(sent, 0))
	}
	for err == nil {
		var line []byte
		var answer struct {
			ID     int
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if line, err = b.from.ReadBytes(0); err != nil {
			break
		}
		if err = json.Unmarshal(line[:len(line)-1], &answer); err != nil || answer.ID != b.id {
			continue
		}
		if answer.Error != nil {
			err = errors.New(answer.Error.Message)
		} else if result != nil {
			err = json.Unmarshal(answer.Result, result)
		}
		break
	}
	if err != nil {
		said, _ := os.ReadFile(b.log)
		t.Fatalf("chromium: %s: %v\n%s", method, err, said)
	}
}

// eval runs JavaScript in the page and returns what it comes to, as text.
func (b *browser) eval(t *testing.T, script string, args ...any) string {
	t.Helper()
	var result struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	b.call(t, "Runtime.evaluate", map[string]any{"expression": fmt.Sprintf(script, args...), "awaitPromise": true, "returnByValue": true}, &result)
	if e := result.ExceptionDetails; e != nil {
		return "error: " + e.Exception.Description
	}
	return strings.TrimSpace(fmt.Sprint(result.Result.Value))
}

// picture writes what the page shows to a PNG file.
func (b *browser) picture(t *testing.T, file string) {
	t.Helper()
	var shot struct{ Data string }
	b.call(t, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
