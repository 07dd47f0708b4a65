// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"path/filepath"
	"strings"

	"imgward/cmd/imgward/metrics"
	viewfs "imgward/fs"
)

// Flags are the options of mount as they are typed; they are handed on to the keeper and the worker unchanged.
type Flags struct {
	Foreground bool
	Options    []string // mount options
	Backing    string   // the directory to show; empty: the mountpoint itself
	Log        string   // a file; empty: the journal, or DefaultLog
	Version    string   // of this program
	ByMount    bool     // of the second layer: a mount started it
}

// ByMount is the flag of that name: the last umount ends such a second layer.
const ByMount = "by-mount"

// noStandby is the mount option that has the keeper do without a standby.
const noStandby = "nostandby"

// args are the flags as arguments again.
func (f *Flags) args(mountpoint string) []string {
	args := []string{"--backing", f.Backing, "--log", f.Log}
	if f.ByMount {
		args = append(args, "--"+ByMount)
	}
	for _, o := range f.Options {
		args = append(args, "-o", o)
	}
	return append(args, "--", mountpoint)
}

// viewOptions turns the flags into the view's options. The mountpoint must have been made absolute.
func (f *Flags) viewOptions(mountpoint string) (o viewfs.Options, policy string, err error) {
	o = viewfs.Options{Mountpoint: mountpoint, Backing: f.Backing, Passthrough: true}
	for _, opt := range f.Options {
		name, value, _ := strings.Cut(opt, "=")
		switch {
		case name == "":
		case name == "nopassthrough":
			o.Passthrough = false
		case name == noStandby: // the keeper's
		case name == "policy":
			policy = value
		case strings.HasPrefix(opt, exposeOption): // see expose
		case name == "metrics":
			if err := metrics.CheckAddress(value); err != nil {
				return o, "", UsageError{err}
			}
		case viewfs.KnownFlag(name):
			o.Flags = append(o.Flags, name)
		case name == "defaults" || name == "auto" || name == "noauto" || name == "nofail" || name == "_netdev" ||
			name == "user" || strings.HasPrefix(name, "x-"):
			// mount(8) and systemd keep these to themselves
		default:
			return o, "", UsageError{fmt.Errorf("unknown mount option %q", opt)}
		}
	}
	return o, policy, nil
}

// absolutePaths makes the paths of the log, the policy and the like independent of the working directory, for the daemon has another.
func (f *Flags) absolutePaths() (err error) {
	if f.Log != "" {
		if f.Log, err = filepath.Abs(f.Log); err != nil {
			return err
		}
	}
	for i, o := range f.Options {
		for _, option := range []string{"policy=", exposeOption} {
			path, ok := strings.CutPrefix(o, option)
			if !ok {
				continue
			}
			if path, err = filepath.Abs(path); err != nil {
				return err
			}
			f.Options[i] = option + path
		}
	}
	return nil
}
