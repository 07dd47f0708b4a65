// SPDX-License-Identifier: Apache-2.0

package lsm

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"imgward/guard"
)

//go:embed guard.bpf.o
var object []byte

// version names the directory below which this object's pins are: another version's are never mistaken for them.
func version() string { return fmt.Sprintf("%.6x", sha256.Sum256(object)) }

// programs of the object that are not attached as they are.
const (
	strictProgram   = "file_permission" // on demand: it costs each read and write
	countingProgram = "already_open"    // an iterator
)

// Load puts the layer in force, pinned below dir, or opens the one that is: then what it knows still holds. The error says
// what the kernel lacks, where it lacks something: see Unsupported.
//
// After it come Program and Process for all that there are, CountOpen, and Declare; RemoveOthers then takes away what
// another version has left in force.
func Load(dir string, log *slog.Logger) (*Layer, error) {
	l := &Layer{
		dir: filepath.Join(dir, version()), log: log, tables: &tables{}, images: map[guard.ID]*declaration{},
		byNumber: map[uint32]guard.ID{},
	}
	if l.open() != nil {
		if err := l.load(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(l.dir))
		}
	}
	if err := l.Settings.Lookup(uint32(0), &l.settings); err != nil {
		return nil, fmt.Errorf("second layer: settings: %w", err)
	}
	l.settings.Generation++
	return l, nil
}

func (l *Layer) pin(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

// open opens what is pinned and complete.
func (l *Layer) open() (err error) {
	if _, err := os.Stat(l.pin("complete")); err != nil {
		return err
	}
	for name, m := range l.tables.all() {
		if *m, err = ebpf.LoadPinnedMap(l.pin("maps", name), nil); err != nil {
			return err
		}
	}
	l.counting, err = ebpf.LoadPinnedProgram(l.pin("programs", countingProgram), nil)
	return err
}

func (l *Layer) load() error {
	if err := Supported(); err != nil {
		return err
	}
	spec, err := spec()
	if err != nil {
		return err
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return unsupported(fmt.Errorf("second layer: the kernel does not take the programs: %w", err))
	}
	defer coll.Close()
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("second layer: remove what is half loaded: %w", err)
	}
	for _, d := range []string{"maps", "programs", "links"} {
		if err := os.MkdirAll(l.pin(d), 0o700); err != nil {
			return fmt.Errorf("second layer: %w (is bpffs mounted? mount -t bpf bpf /sys/fs/bpf)", err)
		}
	}
	if err := coll.Assign(l.tables); err != nil {
		return err
	}
	for name, m := range l.tables.all() {
		if err := (*m).Pin(l.pin("maps", name)); err != nil {
			return err
		}
	}
	for _, name := range []string{countingProgram, strictProgram} {
		if err := coll.Programs[name].Pin(l.pin("programs", name)); err != nil {
			return err
		}
	}
	l.counting = coll.DetachProgram(countingProgram)
	for name, p := range coll.Programs {
		if name == strictProgram {
			continue
		}
		if err := l.attach(name, p); err != nil {
			return err
		}
	}
	return os.Mkdir(l.pin("complete"), 0o700) // bpffs takes directories, and no files
}

// spec is the object, made to fit the running kernel.
func spec() (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("second layer: read the object: %w", err)
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, unsupported(err)
	}
	var setattr *btf.Func
	if err := kernel.TypeByName("bpf_lsm_inode_setattr", &setattr); err != nil {
		return nil, unsupported(err)
	}
	if len(setattr.Type.(*btf.FuncProto).Params) == 2 { // until 6.8
		delete(spec.Programs, "inode_setattr_idmap")
	} else {
		delete(spec.Programs, "inode_setattr")
	}
	for _, hook := range []string{"file_ioctl_compat", "uring_cmd"} {
		var has *btf.Func
		if kernel.TypeByName("bpf_lsm_"+hook, &has) != nil {
			delete(spec.Programs, hook)
		}
	}
	return spec, nil
}

func (l *Layer) attach(name string, p *ebpf.Program) (err error) {
	var to link.Link
	if p.Type() == ebpf.LSM {
		to, err = link.AttachLSM(link.LSMOptions{Program: p})
	} else {
		to, err = link.AttachTracing(link.TracingOptions{Program: p})
	}
	if err != nil {
		return unsupported(fmt.Errorf("second layer: attach %s: %w", name, err))
	}
	defer to.Close()
	if err := to.Pin(l.pin("links", name)); err != nil {
		return fmt.Errorf("second layer: pin %s: %w", name, err)
	}
	return nil
}

// Strict has every write to an image in use judged, whenever its descriptor was opened. It costs each read and write.
func (l *Layer) Strict(on bool) error {
	path := l.pin("links", strictProgram)
	_, err := os.Stat(path)
	if attached := err == nil; attached == on {
		return nil
	}
	if !on {
		return os.Remove(path)
	}
	p, err := ebpf.LoadPinnedProgram(l.pin("programs", strictProgram), nil)
	if err != nil {
		return err
	}
	defer p.Close()
	return l.attach(strictProgram, p)
}

// RemoveOthers takes away what other versions than this one have left in force.
func (l *Layer) RemoveOthers() error { return remove(filepath.Dir(l.dir), filepath.Base(l.dir)) }

// Remove takes the layer away, whoever has loaded it. Nothing of it is left.
func Remove(dir string) error {
	if err := remove(dir, ""); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("second layer: %w", err)
	}
	return nil
}

func remove(dir, but string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("second layer: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != but {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Loaded says whether the layer is in force, of whatever version.
func Loaded(dir string) bool {
	found, _ := filepath.Glob(filepath.Join(dir, "*", "complete"))
	return len(found) > 0
}
