// SPDX-License-Identifier: Apache-2.0

package guard

import "fmt"

// usedReason is the clause that names a use: "it is vdb of running domain rhevm (pid 1234)".
func usedReason(u Use) string {
	if u.Layer != "" {
		return layerReason(u)
	}
	switch u.Evidence {
	case EvidenceLock:
		return lockedReason(u)
	case EvidenceSaved:
		return savedReason(u)
	case EvidencePolicy:
		return policyReason(u)
	}
	if u.Problem != "" {
		return unreadReason(u)
	}
	if u.Domain == "" {
		switch u.doubt {
		case notRead:
			return "libvirt's status files cannot be read in time, so it may be in use"
		case stuck:
			return fmt.Sprintf("process %d is about to execute a program and cannot be looked at (does ps hang, too?), so it "+
				"may be a virtual machine that has it open", u.PID)
		}
		return fmt.Sprintf("virtual machine process %d has it open", u.PID)
	}
	reason := fmt.Sprintf("it is %s of running domain %s%s", part(u), printable(u.Domain), pidClause(u.PID))
	if u.Pending {
		reason += fmt.Sprintf(", or was when %s answered last", printable(u.Path))
	}
	return reason
}

// unreadReason names the file that cannot be read, and says what to do about it.
func unreadReason(u Use) string {
	file, problem, domain := printable(u.Path), printable(u.Problem), printable(u.Domain)
	if domain == "" {
		return fmt.Sprintf("libvirt's directory %s cannot be read (%s), so every image counts as in use: see what is mounted "+
			"there, and its permissions", file, problem)
	}
	if u.Evidence == EvidencePolicy {
		return fmt.Sprintf("the definition of domain %s cannot be read, so every image counts as its own: look at %s (%s)",
			domain, file, problem)
	}
	effect := "every image counts as in use"
	if u.PID != 0 {
		effect = fmt.Sprintf("what its process %d has open counts as in use", u.PID)
	}
	return fmt.Sprintf("the status file of domain %s cannot be read, so %s: look at %s (%s); virsh suspend and resume make "+
		"libvirt write it again, and if that domain does not run, remove it", domain, effect, file, problem)
}

func policyReason(u Use) string {
	switch {
	case u.Domain == "":
		return "the policy protects it always"
	case u.Problem != "":
		return unreadReason(u)
	}
	return fmt.Sprintf("it is %s of domain %s, and the policy protects what is defined", part(u), printable(u.Domain))
}

func lockedReason(u Use) string {
	switch {
	case u.PID != 0:
	case u.Role != RoleUnknown:
		return fmt.Sprintf("it is the %s of %s, which QEMU on another host, or in a container, has open (its locks are held)",
			u.Role, printable(u.Path))
	default:
		return "QEMU on another host, or in a container, has it open (its locks are held)"
	}
	return fmt.Sprintf("QEMU's image locks are held on it, and process %d has it open", u.PID)
}

// part says what the image is to the domain: "vdb", "in the backing chain of vdb", "its NVRAM".
func part(u Use) string {
	target := printable(u.Target)
	switch {
	case target == "" && u.Role == RoleUnknown:
		return "an open file"
	case target == "":
		return "the " + string(u.Role)
	case u.Role == RoleBacking:
		return "in the backing chain of " + target
	case u.Role == RoleCDROM, u.Role == RoleFloppy:
		return "the medium in " + target
	case u.Role == RoleDisk:
		return target
	}
	return fmt.Sprintf("the %s of %s", u.Role, target)
}

func pidClause(pid int) string {
	if pid == 0 {
		return ""
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

// writtenReason is the clause that names who keeps a VM from starting.
func writtenReason(w liveOpener) string {
	since, who := w.Since.Format("15:04:05"), fmt.Sprintf("%s (pid %d)", printable(w.Comm), w.PID)
	switch {
	case w.PID == 0:
		who = "a process of another pid namespace"
	case w.Comm == "":
		who = fmt.Sprintf("process %d", w.PID)
	}
	if w.gone {
		return fmt.Sprintf("it is open for writing since %s through a handle of %s, which has ended: a loop device or a "+
			"child process has it now; the VM can start when that is gone", since, who)
	}
	return fmt.Sprintf("it is being written by %s since %s; the VM can start when that ends", who, since)
}
