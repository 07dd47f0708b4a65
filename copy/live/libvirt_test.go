// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imgward/copy/domain/libvirtd"
)

// fake is a host with one running domain, whose state is in files, so that several processes see it. test/e2e has the real
// libvirt; this one can be made to fail, and is there where the test must kill somebody between two calls.
type fake struct {
	t   *testing.T
	dir string
}

// fakeEnv tells a helper process where its fake is.
const fakeEnv = "IMGCP_TEST_FAKE"

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t, t.TempDir()}
	f.write("state", "running")
	t.Setenv(fakeEnv, f.dir)
	return f
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fake) write(name, content string) { _ = os.WriteFile(f.path(name), []byte(content), 0o644) }

func (f *fake) read(name string) string {
	b, _ := os.ReadFile(f.path(name))
	return strings.TrimSpace(string(b))
}

func (f *fake) has(name string) bool { _, err := os.Stat(f.path(name)); return err == nil }

// called takes note of a call.
func (f *fake) called(what string) {
	log, err := os.OpenFile(f.path("calls"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err == nil {
		_, err = log.WriteString(what + "\n")
		err = errors.Join(err, log.Close())
	}
	if err != nil {
		panic(err)
	}
}

// calls are the calls made, but for those that only find the domain.
func (f *fake) calls() (calls []string) { return strings.Fields(f.read("calls")) }

// eventually waits for a condition that another process brings about.
func (f *fake) eventually(what string, is func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("never %s; libvirt was asked for %q", what, f.calls())
		}
	}
}

func (f *fake) Domain(_ context.Context, name string) (libvirtd.Domain, error) {
	return libvirtd.Domain{Name: name}, nil
}

func (f *fake) Again(_ context.Context, d libvirtd.Domain) (libvirtd.Domain, error) { return d, nil }

func (f *fake) State(context.Context, libvirtd.Domain) (string, error) {
	f.called("state")
	return f.read("state"), nil
}

func (f *fake) XML(context.Context, libvirtd.Domain, libvirtd.XML) (string, error) {
	return `<domain><devices><disk><driver type="raw"/><target dev="vda"/></disk></devices></domain>`, nil
}

func (f *fake) AgentAnswers(context.Context, libvirtd.Domain) bool { return f.has("agent") }

func (f *fake) Job(_ context.Context, _ libvirtd.Domain, completed bool) (libvirtd.Job, error) {
	job := libvirtd.Job(f.read("job"))
	if !completed && job != "Unbounded" {
		job = libvirtd.JobNone
	}
	return job, nil
}

func (f *fake) Suspend(context.Context, libvirtd.Domain) error {
	f.called("suspend")
	if f.has("no-suspend") {
		return errors.New("no")
	}
	f.write("state", "paused")
	return nil
}

func (f *fake) Resume(context.Context, libvirtd.Domain) error {
	f.called("resume")
	f.write("state", "running")
	return nil
}

func (f *fake) FreezeFS(context.Context, libvirtd.Domain) error { f.called("freeze"); return nil }
func (f *fake) ThawFS(context.Context, libvirtd.Domain) error   { f.called("thaw"); return nil }

var targetFile = regexp.MustCompile(`file="([^"]*)"`)

func (f *fake) BeginBackup(_ context.Context, _ libvirtd.Domain, xml string) error {
	f.called("backup")
	f.write("request.xml", xml)
	disk, err := os.ReadFile(f.path("disk"))
	if err == nil {
		err = os.WriteFile(targetFile.FindStringSubmatch(xml)[1], disk, 0o600)
	}
	job := os.Getenv("BACKUP")
	if job == "" {
		job = string(libvirtd.JobCompleted)
	}
	f.write("job", job)
	return err
}

func (f *fake) AbortJob(context.Context, libvirtd.Domain) error {
	f.called("abort")
	f.write("job", "Cancelled")
	return nil
}
