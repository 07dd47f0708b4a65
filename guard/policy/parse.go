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
	for _, s := range f.Rules {
		r := p.Default
		s.settings.apply(&r)
		r.Paths = texts(s.Paths)
		if len(r.Paths) == 0 {
			return fail(errors.New("a [[rule]] has no paths: it would match nothing"))
		}
		p.Rules = append(p.Rules, r)
	}
	f.processes(&p.Processes)
	return p, nil
}

// file is a policy as it is written.
type file struct {
	settings
	VMMs           []glob    `toml:"vmm"`
	Managers       []glob    `toml:"manager"`
	Trusted        []glob    `toml:"trusted"`
	TrustedCgroups []glob    `toml:"trusted_cgroup"`
	Rules          []section `toml:"rule"`
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

// processes takes in the lists of programs. "default" in one stands for those that are known anyway.
func (f *file) processes(p *Processes) {
	for _, l := range []struct {
		to   *[]string
		from []glob
	}{{&p.VMMs, f.VMMs}, {&p.Managers, f.Managers}, {&p.Trusted, f.Trusted}, {&p.TrustedCgroups, f.TrustedCgroups}} {
		if l.from == nil {
			continue
		}
		known := *l.to
		*l.to = nil
		for _, g := range l.from {
			if g == wordDefault {
				*l.to = append(*l.to, known...)
			} else {
				*l.to = append(*l.to, string(g))
			}
		}
	}
}

const wordDefault = "default"

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
	return oneOf(p, text, "degree of protection", Running, Defined, Always, Never)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(text []byte) error { return oneOf(m, text, "mode", Enforce, Audit) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *ForeignWriter) UnmarshalText(text []byte) error {
	return oneOf(f, text, "way to treat a foreign writer", Refuse, Revoke)
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
	if *g != wordDefault && !strings.HasPrefix(string(text), "/") {
		return fmt.Errorf("%q is not an absolute path: a program is known by where it is, not by its name", text)
	}
	return checkPattern(string(text))
}

func oneOf[T ~string](to *T, text []byte, what string, words ...T) error {
	if i := slices.Index(words, T(text)); i >= 0 {
		*to = words[i]
		return nil
	}
	return fmt.Errorf("%q is no %s: it is one of %s%s", text, what, strings.Join(texts(words), ", "),
		didYouMean(string(text), texts(words)))
}
