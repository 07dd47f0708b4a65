// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parse(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultIsThePreset(t *testing.T) {
	p, err := Preset("default")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), p); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Default().Default, parse(t, "").Default); diff != "" {
		t.Error("an empty file:", diff)
	}
}

func TestPresets(t *testing.T) {
	want := map[string]Rule{
		"default": {Protect: Running, Deny: AllOps, Mode: Enforce, Errno: syscall.EBUSY, Writer: Refuse},
		"strict":  {Protect: Defined, Deny: AllOps, Mode: Enforce, Errno: syscall.EBUSY, Writer: Refuse},
		"audit":   {Protect: Running, Deny: AllOps, Mode: Audit, Errno: syscall.EBUSY, Writer: Refuse},
	}
	for _, name := range Presets() {
		p, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[name], p.Default); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, err := Preset("strickt"); err == nil || !strings.Contains(err.Error(), `did you mean "strict"`) {
		t.Error(err)
	}
}

const sample = `
protect = "defined"
errno = "EPERM"
message = "ask ops"
second-layer = "claims"
vmm = ["/opt/qemu/bin/qemu-*"]
manager = ["only", "/opt/libvirt/sbin/*"]
trusted = ["/usr/bin/backup"]
trusted_cgroup = ["/system.slice/backup.service"]
aligned = ["/opt/qemu/bin/qemu-img"]

[[rule]]
paths = ["golden/**", "*.iso"]
protect = "always"
message = ""

[[rule]]
paths = ["scratch/*"]
deny = ["truncate", "unlink"]
mode = "audit"
foreign_writer = "revoke"
errno = "EROFS"
`

// Where imgward was not put where distributions do, neither was imgcp.
func TestImgcpBesideThisProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(filepath.Dir(self), "imgcp")
	if got := DefaultProcesses().Aligned; !slices.Contains(got, beside) {
		t.Errorf("%s is not among %v", beside, got)
	}
}

func TestParse(t *testing.T) {
	p := parse(t, sample)
	want := &Policy{
		Source:  "test",
		Default: Rule{Protect: Defined, Deny: AllOps, Mode: Enforce, Errno: syscall.EPERM, Writer: Refuse, Message: "ask ops"},
		Rules: []Rule{
			{Paths: []string{"golden/**", "*.iso"}, Protect: Always, Deny: AllOps, Mode: Enforce, Errno: syscall.EPERM, Writer: Refuse},
			{Paths: []string{"scratch/*"}, Protect: Defined, Deny: Truncate | Unlink, Mode: Audit, Errno: syscall.EROFS, Writer: Revoke, Message: "ask ops"},
		},
		Processes: Processes{
			VMMs:     append(DefaultProcesses().VMMs, "/opt/qemu/bin/qemu-*"),
			Managers: []string{"/opt/libvirt/sbin/*"}, Trusted: []string{"/usr/bin/backup"},
			TrustedCgroups: []string{"/system.slice/backup.service"},
			Aligned:        append(DefaultProcesses().Aligned, "/opt/qemu/bin/qemu-img"),
		},
		Second: SecondClaims,
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	for path, rule := range map[string]*Rule{
		"golden/a.img": &p.Rules[0], "x/y.iso": &p.Rules[0], "scratch/a.img": &p.Rules[1], "scratch/a.iso": &p.Rules[0],
		"scratch/a/b.img": &p.Default, "vm.img": &p.Default, "": &p.Default,
	} {
		if got := p.For(path); got != rule {
			t.Errorf("%q falls under %+v", path, got)
		}
	}
	if !p.Uses(Always) || !p.Uses(Defined) || p.Uses(Never) {
		t.Error("the degrees of protection in use are not those of the rules")
	}
}

func TestDescribeIsParsed(t *testing.T) {
	text := sample + "\n[[rule]]\npaths = ['we\\ird \"q\" \t*']\ndeny = []\nmessage = \"a\\u001b[31m \\\\ ü\"\n"
	for _, p := range []*Policy{Default(), parse(t, text)} {
		var b strings.Builder
		if err := p.Describe(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse(p.Source, []byte(b.String()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, b.String())
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Error(diff)
		}
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"mode = \"enforce\"\nprotekt = \"always\"":             `line 2: unknown key "protekt" (did you mean "protect"?)`,
		"# x\n\n[[rule]]\npaths = [\"a\"]\nprotct = \"never\"": `line 5: unknown key "protct" in [[rule]] (did you mean "protect"?)`,
		"[[rule]]\npaths=[\"a\"]\nvmm = [\"/a\"]":              `line 3: unknown key "vmm" in [[rule]]`,
		"[rules]\na = 1":                      `line 1: unknown key "rules" (did you mean "rule"?)`,
		"\nprotect = \"runing\"":              `line 2: "runing" is not a value of protect: use one of running, defined, always, never (did you mean "running"?)`,
		"deny = [\n\"truncate\",\n\"unlnk\"]": `"unlnk" is not an operation: use one of truncate, write, unlink, rename, set-flags, all (did you mean "unlink"?)`,
		"errno = \"EXDEV\"":                   `line 1: "EXDEV" is not an error that a refusal may return`,
		"vmm = [\"qemu-kvm\"]":                `line 1: "qemu-kvm" is not an absolute path`,
		"[[rule]]\nprotect = \"always\"":      `a [[rule]] has no paths`,
		"[[rule]]\npaths = [\"a[\"]":          `line 2: pattern "a[": syntax error in pattern`,
		"mode = 1":                            `line 1: `,
		"mode = \"audit\"\nmode = \"audit\"":  `line 2: `,
		"mode":                                `line 1: `,
		"foreign_writer = \"revok\"":          `(did you mean "revoke"?)`,
		"message = \"" + strings.Repeat("x", maxFile) + "\"\n": "it is larger than",
	} {
		p, err := Parse("test", []byte(text))
		if err == nil {
			t.Errorf("%.60q is taken for %+v", text, p)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "policy test: ") {
			t.Errorf("%.60q: %v\nwant %s", text, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern string
		yes, no []string
	}{
		{"*.iso", []string{"a.iso", "x/y/a.iso"}, []string{"a.isox", "a.iso/b"}},
		{"/*.iso", []string{"a.iso"}, []string{"x/a.iso"}},
		{"golden/**", []string{"golden/a", "golden/b/c"}, []string{"goldenx/a", "x/golden/a"}},
		{"**/base.img", []string{"base.img", "a/base.img", "a/b/base.img"}, []string{"xbase.img"}},
		{"vms/**/boot/**/a?", []string{"vms/boot/a1", "vms/x/y/boot/z/a2", "vms/boot/boot/a3"}, []string{"vms/a1", "vms/boot/a"}},
		{"[ab].img", []string{"a.img"}, []string{"c.img"}},
		{`\*.img`, []string{"*.img"}, []string{"a.img"}},
	} {
		for _, name := range tc.yes {
			if !Match(tc.pattern, name) {
				t.Errorf("%s does not match %s", tc.pattern, name)
			}
		}
		for _, name := range tc.no {
			if Match(tc.pattern, name) {
				t.Errorf("%s matches %s", tc.pattern, name)
			}
		}
	}
}

func TestOpsText(t *testing.T) {
	for ops := range AllOps + 1 {
		text, _ := ops.MarshalText()
		var again Ops
		if err := again.UnmarshalText(text); err != nil || again != ops {
			t.Errorf("%b is written %q and read %b, %v", ops, text, again, err)
		}
	}
}

// FuzzParse: no input makes the parser panic or take long, and what it takes is what Describe says of it.
func FuzzParse(f *testing.F) {
	f.Add(sample)
	for _, name := range Presets() {
		text, _ := PresetText(name)
		f.Add(text)
	}
	f.Add("[[rule]]\npaths=['**/a*b*c*/**']")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("fuzz", []byte(text))
		if err != nil {
			return
		}
		var b strings.Builder
		if err := p.Describe(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("fuzz", []byte(b.String()))
		if err != nil {
			t.Fatalf("%v in its own description:\n%s", err, b.String())
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Error(diff)
		}
		p.For("some/longer/path/of.img")
	})
}
