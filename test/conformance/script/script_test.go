// SPDX-License-Identifier: Apache-2.0

package script

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const sample = `
# a comment
== first
for type in dir fifo
for user,err in 0,ok 65534,EACCES
needs acl
[type=dir] mkdir d 0755   # a comment after a step
@$user a = open "d/\x01 b" O_RDONLY => $err
`

func TestVariants(t *testing.T) {
	cases, err := Parse("sample", strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	variants, err := cases[0].Variants(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(variants) != 4 {
		t.Fatalf("got %d variants, want 4", len(variants))
	}
	want := Variant{Bindings: "type=dir user=65534 err=EACCES", Steps: []Step{
		{File: "sample", Line: 7, Op: "mkdir", Args: []string{"d", "0755"}, Want: "ok"},
		{File: "sample", Line: 8, Who: "65534", Bind: "a", Op: "open", Args: []string{"d/\x01 b", "O_RDONLY"}, Want: "EACCES"},
	}}
	if diff := cmp.Diff(want, variants[1], cmpopts.IgnoreUnexported(Step{})); diff != "" {
		t.Error(diff)
	}
	if n := len(variants[3].Steps); n != 1 {
		t.Errorf("type=fifo has %d steps: the condition did not hold one back", n)
	}
}

func TestGeneratedSizes(t *testing.T) {
	for _, n := range []int{1, 200, 201, 202, 255, 402, 4095, 4096} {
		for _, kind := range []string{"name", "path"} {
			got, err := substitute("$"+kind+strconv.Itoa(n), nil)
			if err != nil || len(got) != n || strings.HasSuffix(got, "/") || strings.Contains(got, "//") {
				t.Errorf("%s%d: %d bytes, %v", kind, n, len(got), err)
			}
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, bad := range []string{"mkdir d", "== x\nfor a b c", "== x\nfor a,b in 1"} {
		if _, err := Parse("bad", strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	for _, bad := range []string{"[nosuch=1] mkdir d", "mkdir $nosuch", `mkdir "d`, "=> EPERM"} {
		cases, err := Parse("bad", strings.NewReader("== x\n"+bad))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cases[0].Variants(nil); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
