// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgward/guard/policy"
)

// governed makes a guard under a policy, with the test's programs in it.
func (h *host) governed(text string) *Guard {
	h.t.Helper()
	p, err := policy.Parse("test", []byte(text))
	h.must(err)
	p.Processes = h.config.Policy.Processes
	h.config.Policy = p
	return h.guard()
}

// define writes a persistent domain's definition.
func (h *host) define(name string, images ...string) {
	path := filepath.Join(h.dir, "etc", name+".xml")
	h.must(os.MkdirAll(filepath.Dir(path), 0o755))
	h.must(os.WriteFile(path, definition(name, images...), 0o600))
}

func TestPolicy(t *testing.T) {
	const strict = "protect = 'defined'\n"
	for _, tc := range []struct {
		name, policy string
		image        string // "running.img", "defined.img", "idle.img"
		op           Op
		caller       string
		want         string
	}{
		{"never", "protect = 'never'", "running.img", OpTruncate, "outsider", "yes"},
		{"never, a rule", "[[rule]]\npaths=['r*.img']\nprotect='never'", "running.img", OpTruncate, "outsider", "yes"},
		{"another's rule", "[[rule]]\npaths=['x*.img']\nprotect='never'", "running.img", OpTruncate, "outsider", "no"},
		{"denied", "deny = ['unlink']", "running.img", OpUnlink, "outsider", "no"},
		{"not denied", "deny = ['unlink']", "running.img", OpTruncate, "outsider", "yes"},
		{"denied to managers", "deny = ['write']", "running.img", OpTruncate, "manager", "yes"},
		{"rename is all of rename", "deny = ['rename']", "running.img", OpReplace, "outsider", "no"},
		{"audit", "mode = 'audit'", "running.img", OpTruncate, "outsider", "audit"},
		{"audit, idle", "mode = 'audit'", "idle.img", OpTruncate, "outsider", "yes"},
		{"trusted", "", "running.img", OpTruncate, "trusted", "yes"},

		{"running only", "", "defined.img", OpTruncate, "outsider", "yes"},
		{"defined", strict, "defined.img", OpTruncate, "outsider", "no"},
		{"defined, manager writes", strict, "defined.img", OpOpenWrite, "manager", "yes"}, // a snapshot of one that is shut off
		{"defined, running, manager writes", strict, "running.img", OpOpenWrite, "manager", "checked"},
		{"defined, manager undefines", strict, "defined.img", OpUnlink, "manager", "yes"},
		{"defined, VM starts", strict, "defined.img", OpOpenWrite, "vmm", "yes"},
		{"defined, running", strict, "running.img", OpTruncate, "outsider", "no"},
		{"defined, running's own", strict, "running.img", OpTruncate, "vmm", "yes"},
		{"defined, idle", strict, "idle.img", OpTruncate, "outsider", "yes"},

		{"always", "[[rule]]\npaths=['idle*']\nprotect='always'", "idle.img", OpOpenWrite, "outsider", "no"},
		{"always, manager removes", "[[rule]]\npaths=['idle*']\nprotect='always'", "idle.img", OpUnlink, "manager", "no"},
		{"always, manager wipes", "[[rule]]\npaths=['idle*']\nprotect='always'", "idle.img", OpTruncate, "manager", "no"},
		{"always, VM opens", "[[rule]]\npaths=['idle*']\nprotect='always'", "idle.img", OpOpenWrite, "vmm", "yes"},
		{"always elsewhere", "[[rule]]\npaths=['golden/**']\nprotect='always'", "idle.img", OpUnlink, "outsider", "yes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t)
			for _, name := range []string{"running.img", "defined.img", "idle.img"} {
				h.image(name)
			}
			h.define("off", filepath.Join(h.dir, "defined.img"))
			caller := h.run(tc.caller)
			pid := caller.PID
			if tc.caller != "vmm" {
				pid = h.run("vmm").PID
			}
			h.domain("on", pid, filepath.Join(h.dir, "running.img"))
			v := h.governed(tc.policy).Check(background, h.request(tc.op, filepath.Join(h.dir, tc.image), caller))
			got := outcome(&v)
			if v.Audit {
				got = "audit"
			}
			if got != tc.want {
				t.Errorf("%s, want %s (%s)", got, tc.want, v.Reason)
			}
		})
	}
}

func TestPolicyReasons(t *testing.T) {
	h := newHost(t)
	img, gold := h.image("vm.img"), h.image("gold.img")
	h.define("rhevm", img)
	g := h.governed("protect = 'defined'\nmessage = 'Ask ops.'\n[[rule]]\npaths=['gold*']\nprotect='always'\nerrno='EROFS'")
	v := h.refuse(g, h.request(OpTruncate, img, nil))
	if v.Reason != "it is vda of domain rhevm, and the policy protects what is defined" || v.Message != "Ask ops." {
		t.Errorf("%+v", v)
	}
	v = h.refuse(g, h.request(OpTruncate, gold, nil))
	if v.Reason != "the policy protects it always" || v.Errno.Error() != "read-only file system" {
		t.Errorf("%+v", v)
	}
	if uses := g.Who(background, h.request(OpTruncate, img, nil)); len(uses) != 0 { // nobody does, whatever the policy protects
		t.Errorf("who: %+v", uses)
	}
}

// A definition means what is under its path now: not what was there before, and soon what was put there since.
func TestDefinedPathLeadsElsewhere(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	h.define("off", img)
	g := h.governed("protect = 'defined'")
	moved := filepath.Join(h.dir, "moved.img")
	h.refuse(g, h.request(OpTruncate, img, nil))
	h.must(os.Rename(img, moved))
	r := h.request(OpTruncate, moved, nil)
	if v := g.Check(background, r); !v.Allowed {
		t.Errorf("not defined under this name: %s", v.Reason)
	}
	h.image("vm.img")
	h.refuse(g, h.request(OpTruncate, img, nil)) // nothing was under the path when the last question came
	h.must(os.Rename(moved, img))
	began := time.Now()
	await(t, "the file that took the image's place is protected", func() bool { return !g.Check(background, h.request(OpTruncate, img, nil)).Allowed })
	if waited := time.Since(began); waited > rereadEvery/2 {
		t.Errorf("it was unprotected for %v", waited)
	}
}

func TestSetPolicy(t *testing.T) {
	h := newHost(t)
	img := h.image("vm.img")
	h.define("off", img)
	g := h.guard()
	r := h.request(OpTruncate, img, nil)
	if v := g.Check(background, r); !v.Allowed {
		t.Fatalf("an image of a domain that is shut off: %s", v.Reason)
	}
	strict, err := policy.Preset("strict")
	h.must(err)
	g.SetPolicy(strict)
	if v := g.Check(background, r); v.Allowed {
		t.Error("the new policy does not hold")
	}
	if g.Policy() != strict {
		t.Error("the policy that holds is not the one that was set")
	}
	os.Remove(filepath.Join(h.dir, "etc/off.xml"))
	if v := g.Check(background, r); !v.Allowed {
		t.Errorf("undefined, and still: %s", v.Reason)
	}
	h.must(os.WriteFile(filepath.Join(h.dir, "etc/odd.xml"), []byte("<domain><name>"), 0o600))
	if v := g.Check(background, r); v.Allowed || !strings.Contains(v.Reason, "the definition of domain odd cannot be read") {
		t.Errorf("a definition that cannot be read: %+v", v)
	}
	g.SetPolicy(policy.Default())
	if v := g.Check(background, r); !v.Allowed {
		t.Error("the strict policy still holds")
	}
	for _, e := range g.Events().Recent() {
		if e.Type == EventPolicy && e.Source == "preset strict" {
			return
		}
	}
	t.Error("the change of policy is no event")
}
