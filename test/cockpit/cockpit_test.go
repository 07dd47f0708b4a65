// SPDX-License-Identifier: Apache-2.0

// Package cockpit opens the Cockpit page in a browser, in the real Cockpit, over a real view.
package cockpit

import (
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgward/test/harness"
	"imgward/test/need"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// pictureFile is where `make pictures` wants the page's picture.
var pictureFile = flag.String("picture", "", "write a picture of the page to this `FILE`") //nolint:gochecknoglobals // a flag

const cockpitWS = "/usr/lib/cockpit/cockpit-ws"

// The page shows what is protected and by whom, refusals as they come, and grants and revokes exceptions.
func TestPage(t *testing.T) {
	need.Extra(t, "chromium cockpit-ws cockpit-bridge", "chromium", "cockpit-bridge", cockpitWS)
	h := harness.New(t)
	// A path as an administrator's, short enough for a picture. Its dash becomes \x2d in the socket's name.
	harness.Sh(t, "set -e; mount -t tmpfs tmpfs /srv; mount --make-private /srv; mount --make-shared /srv; mkdir /srv/vm-images").OK(t)
	t.Cleanup(func() { harness.Run(t, "umount", "/srv").OK(t) })
	h.Images = "/srv/vm-images"
	base := h.Raw(t, "golden.img", harness.MiB)
	h.Run(t, harness.Spec{Name: "rhevm", Disks: []harness.Disk{
		{Target: "vda", File: h.Overlay(t, "vm-disk1.qcow2", base, "raw"), Format: "qcow2"},
		{Target: "vdb", File: h.Raw(t, "vm-disk2.img", harness.MiB)},
	}})
	v := h.Mount(t)
	b := open(t, h.Out, serve(t, h)+"/cockpit/@localhost/imgward/index.html")
	shows := func(what, selector, text string) {
		t.Helper()
		var got string
		defer func() {
			if t.Failed() {
				t.Logf("%s: the page shows %q, wanted %q; all of it: %s", what, got, text, b.eval(t, "document.documentElement.outerHTML"))
			}
		}()
		harness.Until(t, what, func() bool {
			got = b.eval(t, `(document.querySelector(%q) || document.body).innerText`, selector)
			return strings.Contains(got, text)
		})
	}

	shows("the view is shown", ".view h1", h.Images)
	shows("it is protected", ".serves", "Protected since")
	shows("an image is shown with who uses it", ".images", "vdb (disk) of rhevm")
	shows("nothing was refused yet", ".view", "Nothing has been refused.")
	harness.Until(t, "the drawing of the chains is loaded", func() bool {
		return b.eval(t, `document.querySelector(".chains img").naturalWidth > 100`) == "true"
	})

	script := `dd if=/dev/zero of="$DIR/vm-disk2.img" bs=1k count=1`
	if r := harness.Sh(t, script, "DIR="+h.Images); r.Exit == 0 {
		t.Fatal("dd was not refused")
	}
	shows("the refusal comes by itself", ".refusals tbody", "truncate vm-disk2.img")
	shows("with its reason", ".refusals tbody", "it is vdb of running domain rhevm")
	shows("and is counted", ".serves", "1 refused")

	b.eval(t, `document.querySelector(".refusals button").click()`)
	b.eval(t, `document.querySelector("#allow button[value=allow]").click()`)
	if got := b.eval(t, `document.getElementById("allow").open`); got != "true" {
		t.Errorf("an exception without a reason: the dialog is open: %s", got)
	}
	b.eval(t, `document.querySelector("#allow [name=reason]").value = "INC-4711: the disk is made anew"`)
	b.eval(t, `document.querySelector("#allow button[value=allow]").click()`)
	shows("the exception is shown", ".exceptions tbody", "INC-4711: the disk is made anew")
	if *pictureFile != "" {
		b.picture(t, *pictureFile)
	}
	if got := b.eval(t, `localStorage.setItem("shell:style", "dark"); dress(); getComputedStyle(document.documentElement).colorScheme`); got != "dark" {
		t.Errorf("Cockpit is dark, and the page %s", got)
	}
	if r := harness.Sh(t, script, "DIR="+h.Images); r.Exit != 0 {
		t.Errorf("dd is refused with an exception: %s", r.Stderr)
	}
	b.eval(t, `document.querySelector(".images button").click()`)
	b.eval(t, `document.querySelector("#allow [name=reason]").value = "another, as <b>it</b> was written"`)
	b.eval(t, `document.querySelector("#allow button[value=allow]").click()`)
	shows("another exception is shown", ".exceptions tbody", "another, as <b>it</b> was written")
	b.eval(t, `[...document.querySelectorAll(".exceptions button")].forEach(b => b.click())`)
	shows("they are gone when they are revoked", ".exceptions + .none", "There are none.")

	b.eval(t, `(view => { view.http = cockpit.http("/nonexistent"); view.refresh() })([...views.values()][0])`)
	shows("what is old is not shown as if it were true", ".warnings", "What is shown here is old.")
	v.End(t)
	shows("nothing is left of the view", "#state", "No view is mounted")
}

// serve starts Cockpit without a login, with the page among its packages, and returns its address.
func serve(t *testing.T, h *harness.Host) string {
	t.Helper()
	page, err := filepath.Abs("../../dist/cockpit")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(h.Dir, "share")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(page, filepath.Join(data, "cockpit")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	harness.Spawn(t, filepath.Join(h.Dir, "cockpit.log"), "env", "-u", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent", "SSH_AUTH_SOCK=/nonexistent", // else it starts daemons of its own
		"XDG_DATA_DIRS="+data+":/usr/share", "HOME="+h.Dir,
		"PATH="+filepath.Dir(harness.Imgward())+":"+os.Getenv("PATH"),
		cockpitWS, "--local-session=cockpit-bridge", "--address=127.0.0.1", fmt.Sprintf("--port=%d", port))
	harness.Until(t, "Cockpit listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "http://" + address
}
