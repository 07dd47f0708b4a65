// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
)

// TestBystander: a shell that stood in the directory before the mount bypasses the view. It cannot be held back, so it is
// told, and nobody is told that it is held back.
func TestBystander(t *testing.T) {
	v := newView(t, allAlways)
	v.image(t, "a.img")
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Dir(v.dir)
	there, over := filepath.Join(base, "there"), filepath.Join(base, "over")
	screen := make(chan string)
	go func() {
		screen <- harness.OnTerminal(t, "cd "+v.dir+"; : >"+there+"; until [ -e "+over+" ]; do sleep 0.05; done")
	}()
	until(t, "the other shell stands there", func() bool {
		_, err := os.Stat(there)
		return err == nil
	})
	t.Cleanup(func() { v.run(t, "umount", v.dir) })

	out := harness.OnTerminal(t, `cd $V; $I mount --log $L -o policy=$P $V
		$I check truncate a.img; echo check=$?
		$I who a.img; $I allow --op truncate --for 1m --reason x a.img; echo allow=$?
		dd if=/dev/zero of=a.img bs=1k count=1; echo dd=$?
		cd .; $I check truncate a.img; echo check=$?
		dd if=/dev/zero of=a.img bs=1k count=1; echo dd=$?`,
		"V="+v.dir, "I="+bin, "L="+v.log, "P="+v.policy)
	doctor, _ := v.try(t, "doctor")
	if err := os.WriteFile(over, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(out, "dd=0")
	for _, want := range []string{"cd .", "bypasses the view", "check=0", "allow=1", "on /dev/"} {
		if !strings.Contains(before, want) {
			t.Errorf("nothing of %q before `cd .`", want)
		}
	}
	for _, want := range []string{"check=3", "dd=1"} {
		if !strings.Contains(after, want) {
			t.Errorf("nothing of %q after `cd .`", want)
		}
	}
	if t.Failed() {
		t.Logf("the terminal shows:\n%s", out)
	}
	if !strings.Contains(doctor, "its working directory is "+v.dir) {
		t.Errorf("doctor does not know the other shell:\n%s", doctor)
	}
	if shown := <-screen; !strings.Contains(shown, v.dir+" is protected now") || !strings.Contains(shown, "cd .") {
		t.Errorf("the other shell was not told: %q", shown)
	}
	if out, _ := v.try(t, "doctor"); strings.Contains(out, "bypasses the view") {
		t.Errorf("doctor finds somebody who has gone:\n%s", out)
	}
}
