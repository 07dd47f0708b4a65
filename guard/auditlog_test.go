// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"imgward/guard/kaudit"
	"imgward/guard/policy"
)

// auditor takes down what it is sent; it fails from the time on that it is told to.
type auditor struct {
	texts chan string
	err   error
}

func (a *auditor) Send(kind uint16, text string) error {
	if kind < 1100 || kind > 1199 { // what the kernel takes from programs (<linux/audit.h>)
		text = fmt.Sprintf("of type %d: %s", kind, text)
	}
	a.texts <- text
	return a.err
}

func (a *auditor) next(t *testing.T) string {
	t.Helper()
	select {
	case text := <-a.texts:
		return text
	case <-time.After(10 * time.Second):
		t.Fatal("no record")
		return ""
	}
}

func audited(t *testing.T, a *auditor) *Guard {
	t.Helper()
	g, err := New(Config{Audit: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func TestAuditRecords(t *testing.T) {
	a := &auditor{texts: make(chan string, 100)}
	g := audited(t, a)
	uid, login := uint32(0), uint32(1000)
	refusal := &Event{
		Type: EventRefusal, Op: OpTruncate, Path: "vm disk.img", PID: 4711, Comm: "dd", Exe: "/usr/bin/dd", UID: &uid, LoginUID: &login,
		Domain: "rhevm", UUID: "1-2", Target: "vdb", Errno: "EBUSY",
	}
	g.audit(refusal)
	want := `op=imgward-truncate path=766D206469736B2E696D67 vm="rhevm" uuid="1-2" dev="vdb" opid=4711 ouid=0 oauid=1000 ocomm="dd" cmd="/usr/bin/dd" errno=EBUSY res=failed`
	if got := a.next(t); got != want {
		t.Errorf("refused:\n%s\nwant\n%s", got, want)
	}
	watched := *refusal
	watched.Audit, watched.LoginUID = true, nil
	g.audit(&watched)
	if got := a.next(t); !strings.HasSuffix(got, "permissive=1 res=success") || !strings.Contains(got, "oauid=4294967295") {
		t.Errorf("audited: %s", got)
	}

	e := Exception{Image: ID{Dev: 1, Ino: 2}, Path: "a.img", Ops: policy.Truncate, Expires: time.Now().Add(time.Minute), Reason: "INC 1\n"}
	granted, err := g.Allow(e, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.next(t); !strings.HasPrefix(got, `op=imgward-exception change=? id=1 path="a.img" perm=truncate ouid=0 oauid=4294967295 expires=`) ||
		!strings.HasSuffix(got, "reason=494E4320310A terminal=? res=success") {
		t.Errorf("granted: %s", got)
	}
	g.exceptions.spend(&granted, OpTruncate, &Process{PID: 5, Comm: "dd"})
	if got := a.next(t); !strings.HasPrefix(got, "op=imgward-exception-used change=") {
		t.Errorf("used: %s", got)
	}
	g.Revoke(granted.ID)
	if got := a.next(t); !strings.HasPrefix(got, "op=imgward-exception-gone change=\"revoked\" id=1 ") {
		t.Errorf("gone: %s", got)
	}
}

// Floods are bounded, exceptions are not lost in them, and a log that is not there is not asked again.
func TestAuditBounds(t *testing.T) {
	a := &auditor{texts: make(chan string, 10000)}
	g := audited(t, a)
	uid := uint32(0)
	for range 5000 {
		g.audit(&Event{Type: EventRefusal, Op: OpUnlink, UID: &uid})
		for len(g.audits) == cap(g.audits) {
			time.Sleep(time.Millisecond)
		}
	}
	g.exceptionChanged(EventException, "", &Exception{ID: 7})
	refusals := 0
	for text := ""; !strings.HasPrefix(text, "op=imgward-exception"); refusals++ {
		text = a.next(t)
	}
	if refusals > logsAtOnce+logsPerSecond*30 {
		t.Errorf("%d records of refusals", refusals)
	}

	a = &auditor{texts: make(chan string, 10), err: fmt.Errorf("%w: test", kaudit.ErrNone)}
	g = audited(t, a)
	for range 5 {
		g.exceptionChanged(EventException, "", &Exception{})
	}
	a.next(t)
	for len(g.audits) > 0 {
		time.Sleep(time.Millisecond)
	}
	if len(a.texts) > 0 {
		t.Error("it was asked again")
	}
}
