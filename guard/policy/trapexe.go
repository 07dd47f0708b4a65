// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// programTrap is why an entry of a list of programs is nobody: a process is known by what /proc/PID/exe points to, which is
// neither a script nor a symbolic link.
func programTrap(glob string) string {
	matches, err := filepath.Glob(glob)
	if err != nil || len(matches) == 0 {
		return "names no file: there is no such file on this host"
	}
	why := ""
	for _, path := range matches {
		if why = executableTrap(path); why == "" {
			return ""
		}
	}
	return why
}

func executableTrap(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		return fmt.Sprintf("is a symbolic link, or below one: name what it leads to, %q", real)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "cannot be looked at: " + err.Error()
	case info.IsDir():
		return "is a directory"
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return "is no executable"
	}
	if interpreter, ok := script(path); ok {
		return fmt.Sprintf("is a script: what runs is %s, and to name that would mean every script. Run it as a service, and "+
			"name its control group: trusted_cgroup = [\"/system.slice/NAME.service\"]", interpreter)
	}
	return ""
}

// script says whether a file is run by an interpreter, and by which.
func script(path string) (interpreter string, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	const longest = 256 // BINPRM_BUF_SIZE, <linux/binfmts.h>
	line, _ := io.ReadAll(io.LimitReader(f, longest))
	line, ok = bytes.CutPrefix(line, []byte("#!"))
	if fields := strings.Fields(string(bytes.SplitN(line, []byte("\n"), 2)[0])); ok && len(fields) > 0 {
		return fields[0], true
	}
	return "an interpreter", ok
}

// leftOut names the VMMs of this host that a list which replaces the known one does not have.
func leftOut(known, list []string) []string {
	var traps []string
	for _, glob := range known {
		installed, _ := filepath.Glob(glob)
		for _, path := range installed {
			if real, err := filepath.EvalSymlinks(path); err != nil || real != path {
				continue // its target is in the list, or it is nobody's executable
			}
			if matchesAny(list, path) || !isRegular(path) {
				continue
			}
			traps = append(traps, fmt.Sprintf("vmm = [\"only\", …] leaves out %s, which is installed here: its VMs without libvirt are nobody", path))
		}
	}
	return slices.Compact(traps)
}

func matchesAny(globs []string, path string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return matchPart(g, path) })
}

func isRegular(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeType == 0
}
