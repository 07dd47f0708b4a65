// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed presets
var presets embed.FS

var presetNames = [...]string{"default", "strict", "audit"}

// Presets names the presets.
func Presets() []string { return presetNames[:] }

// PresetText is a preset as a file that one can start from, with its comments.
func PresetText(name string) (string, error) {
	for _, n := range presetNames {
		if n == name {
			text, err := presets.ReadFile("presets/" + name + ".toml")
			return string(text), err
		}
	}
	return "", fmt.Errorf("there is no preset %q: it is one of %s%s", name, strings.Join(presetNames[:], ", "),
		didYouMean(name, presetNames[:]))
}

// Preset is one of the presets.
func Preset(name string) (*Policy, error) {
	text, err := PresetText(name)
	if err != nil {
		return nil, err
	}
	return Parse("preset "+name, []byte(text))
}

// Default is the policy that holds without any file: the preset "default", which a test compares with this.
func Default() *Policy {
	return &Policy{
		Source: "preset default",
		Default: Rule{
			Protect: Running, Deny: AllOps, Mode: Enforce, Errno: defaultErrno, Writer: Refuse,
		},
		Processes: DefaultProcesses(),
		Second:    SecondAuto,
	}
}
