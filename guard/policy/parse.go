// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"
)

// maxFile is the largest policy file that is read, in bytes.
const maxFile = 1 << 20

// Load reads a policy file. The error names the file and the line.
func Load(file string) (*Policy, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, text)
}

// Parse reads a policy. source is for messages. What the text leaves out is as in the preset "default"; what a rule
// leaves out is as at the top of the file.
func Parse(source string, text []byte) (*Policy, error) {
	fail := func(err error) (*Policy, error) { return nil, fmt.Errorf("policy %s: %w", source, err) }
	if len(text) > maxFile {
		return fail(fmt.Errorf("it is larger than %d KiB", maxFile>>10))
	}
	var f file
	meta, err := toml.Decode(string(text), &f)
	var located toml.ParseError
	switch {
	case errors.As(err, &located):
		return fail(atLine(located.Position.Line, located))
	case err != nil:
		return fail(err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fail(unknownKeys(text, unknown))
	}
	p := Default()
	p.Source = source
	f.settings.apply(&p.Default)
	set(&p.Second, f.Second)
	for _, s := range f.Rules {
		r := p.Default
		s.settings.apply(&r)
		r.Paths = texts(s.Paths)
		if len(r.Paths) == 0 {
			return fail(errors.New("a [[rule]] has no paths: it would match nothing"))
		}
		p.Rules = append(p.Rules, r)
	}
	if err := f.processes(&p.Processes); err != nil {
		return fail(err)
	}
	return p, nil
}

// file is a policy as it is written.
type file struct {
	settings
	Second         *SecondLayer `toml:"second-layer"`
	VMMs           []glob       `toml:"vmm"`
	VMMCgroups     []glob       `toml:"vmm_cgroup"`
	Managers       []glob       `toml:"manager"`
	Trusted        []glob       `toml:"trusted"`
	TrustedCgroups []glob       `toml:"trusted_cgroup"`
	Aligned        []glob       `toml:"aligned"`
	Rules          []section    `toml:"rule"`
}

type section struct {
	settings
	Paths []pattern `toml:"paths"`
}

// settings are the keys that stand at the top as well as in rules. Nil: not given.
type settings struct {
	Protect *Protect       `toml:"protect"`
	Deny    []opName       `toml:"deny"`
	Mode    *Mode          `toml:"mode"`
	Errno   *errnoText     `toml:"errno"`
	Writer  *ForeignWriter `toml:"foreign_writer"`
	Message *string        `toml:"message"`
}

func (s *settings) apply(r *Rule) {
	set(&r.Protect, s.Protect)
	set(&r.Mode, s.Mode)
	set(&r.Writer, s.Writer)
	set(&r.Message, s.Message)
	if s.Errno != nil {
		r.Errno = s.Errno.errno
	}
	if s.Deny != nil {
		r.Deny = 0
		for _, o := range s.Deny {
			r.Deny |= o.ops
		}
	}
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// processes takes in the lists of programs. Each adds to those that are known anyway, unless "only" stands at its head.
func (f *file) processes(p *Processes) error {
	for _, l := range []struct {
		key  string
		to   *[]string
		from []glob
	}{
		{"vmm", &p.VMMs, f.VMMs}, {"vmm_cgroup", &p.VMMCgroups, f.VMMCgroups}, {"manager", &p.Managers, f.Managers}, {"trusted", &p.Trusted, f.Trusted},
		{"trusted_cgroup", &p.TrustedCgroups, f.TrustedCgroups}, {"aligned", &p.Aligned, f.Aligned},
	} {
		for i, g := range l.from {
			switch {
			case g == wordOnly && i > 0:
				return fmt.Errorf("%s: %q comes first in a list, and has it replace what is known anyway", l.key, wordOnly)
			case g == wordOnly:
				*l.to = nil
			case g != wordDefault && !slices.Contains(*l.to, string(g)):
				*l.to = append(*l.to, string(g))
			}
		}
	}
	return nil
}

const (
	wordOnly    = "only"    // the list replaces what is known anyway
	wordDefault = "default" // what is known anyway; it needs no mention
)

func texts[T ~string](list []T) []string {
	var all []string
	for _, t := range list {
		all = append(all, string(t))
	}
	return all
}

// The values of keys check themselves, so that the decoder can say in which line a wrong one stands.

type (
	opName    struct{ ops Ops }
	errnoText struct{ errno syscall.Errno }
	pattern   string
	glob      string
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Protect) UnmarshalText(text []byte) error {
	return oneOf(p, text, "protect", Running, Defined, Always, Never)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error { return oneOf(m, text, "mode", Enforce, Audit) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *ForeignWriter) UnmarshalText(text []byte) error {
	return oneOf(f, text, "foreign_writer", Refuse, Revoke)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *SecondLayer) UnmarshalText(text []byte) error {
	return oneOf(l, text, "second layer", SecondAuto, SecondStrict, SecondClaims, SecondOff)
}

func (o *opName) UnmarshalText(text []byte) (err error) {
	o.ops, err = ParseOp(string(text))
	return err
}

func (e *errnoText) UnmarshalText(text []byte) (err error) {
	e.errno, err = parseErrno(string(text))
	return err
}

func (p *pattern) UnmarshalText(text []byte) error {
	*p = pattern(text)
	if err := checkPattern(string(text)); err != nil {
		return fmt.Errorf("pattern %q: %w", text, err)
	}
	return nil
}

// UnmarshalText takes absolute paths only: a bare name would trust a program by a name that it can choose.
func (g *glob) UnmarshalText(text []byte) error {
	*g = glob(text)
	if *g != wordDefault && *g != wordOnly && !strings.HasPrefix(string(text), "/") {
		return fmt.Errorf("%q is not an absolute path: a program is known by where it is, not by its name", text)
	}
	return checkPattern(string(text))
}

func oneOf[T ~string](to *T, text []byte, what string, words ...T) error {
	if i := slices.Index(words, T(text)); i >= 0 {
		*to = words[i]
		return nil
	}
	return fmt.Errorf("%q is not a value of %s: use one of %s%s", text, what, strings.Join(texts(words), ", "),
		didYouMean(string(text), texts(words)))
}
