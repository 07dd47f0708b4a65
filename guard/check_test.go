package guard

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"imgward/guard/libvirt"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	img := filepath.Join(dir, "a.img")
	if err := os.WriteFile(img, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	status := filepath.Join(dir, "qemu")
	g, err := New(Config{StatusDirs: []libvirt.Dir{{Path: status, Driver: "qemu"}}, PoolDirs: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var st unix.Stat_t
	unix.Stat(img, &st)
	r := &Request{Op: OpTruncate, Image: StatID(&st), TID: os.Getpid(), Open: func() (*os.File, error) { return os.Open(img) }}
	if v := g.Check(context.Background(), r); !v.Allowed {
		t.Fatal(v)
	}
	os.Mkdir(status, 0o700)
	os.WriteFile(filepath.Join(status, "d.xml"), fmt.Appendf(nil, `<domstatus state='running' pid='%d'><domain><name>d</name><devices><disk type='file'><source file='%s'/><target dev='vda'/></disk></devices></domain></domstatus>`, os.Getpid(), img), 0o600)
	v := g.Check(context.Background(), r)
	if v.Allowed {
		t.Fatal(v)
	}
	t.Log(v.Reason)
	os.Remove(filepath.Join(status, "d.xml"))
	if v := g.Check(context.Background(), r); !v.Allowed {
		t.Fatal(v)
	}
	os.WriteFile(filepath.Join(status, "e.xml"), []byte("<dom"), 0o600)
	v = g.Check(context.Background(), r)
	t.Log(v.Reason)
	if v.Allowed {
		t.Fatal()
	}
}
