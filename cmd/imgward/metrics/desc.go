// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("imgward_"+name, help, labels, nil)
}

// What there is. Names follow prometheus.io/docs/practices/naming: base units, _total for counters, _info for facts.
var (
	buildInfo        = desc("build_info", "The daemon's version; always 1.", "version")
	passthrough      = desc("passthrough_enabled", "Whether the kernel passes reads and writes of new opens through (1) or the daemon does (0).")
	openFiles        = desc("open_files", "Open files by how their data travels.", "path")
	nodes            = desc("nodes", "Inodes that the kernel knows of the view.")
	handles          = desc("handles", "Open handles.")
	descriptors      = desc("node_descriptors", "Backing descriptors kept open for inodes.")
	reachable        = desc("view_reachable", "Whether the mountpoint leads to the view (1), or the view is covered, was moved, or is gone (0).")
	mountsBelow      = desc("mounts_below", "File systems that were mounted below the view and are no part of it.")
	mounted          = desc("mount_time_seconds", "When the view was mounted, in seconds since 1970.")
	serving          = desc("serving_time_seconds", "When the worker that serves now began, in seconds since 1970: its counters started at zero then.")
	pause            = desc("takeover_last_pause_seconds", "How long requests waited at the last take-over; left out where it is not known.")
	takeovers        = desc("takeovers_total", "Workers that took over since the view was mounted.")
	decisions        = desc("decisions_total", "Answers of the guard since the worker started.", "result")
	decisionSeconds  = desc("decision_duration_seconds", "How long the guard took for an answer.")
	refusals         = desc("refusals_total", "Operations refused since the worker started, or that would have been (mode audit). There is one of each from the start.", "op", "mode")
	domainRefusals   = desc("domain_refusals_total", "The same, by whom they concern; one appears with its first refusal.", "op", "domain", "caller", "mode")
	unexplained      = desc("refusals_unexplained_total", "Refusals that were only counted, for there were too many at once.")
	imagesInUse      = desc("images_protected", "Images of the view that are in use.")
	uses             = desc("image_uses", "Reasons why images are in use, by the source of the evidence.", "evidence")
	domainsRunning   = desc("domains_running", "Domains with a live VMM.")
	domainsStale     = desc("domains_stale", "Domains that run by their status file, but whose VMM is gone.")
	unreadable       = desc("status_files_unreadable", "Status files and directories that cannot be read; blind: nothing is known from before, so that every image counts as in use.", "blind")
	evidenceUp       = desc("evidence_readable", "Whether the evidence could be read in time (1) or not (0).")
	exceptionsActive = desc("exceptions_active", "Exceptions (imgward allow) that hold.")
	policyValid      = desc("policy_file_valid", "Whether the policy file that is there is in force (1), or has a mistake (0).")
)

var all = [...]*prometheus.Desc{
	buildInfo, passthrough, openFiles, nodes, handles, descriptors, reachable, mountsBelow, mounted, serving, pause, takeovers, decisions, decisionSeconds,
	refusals, domainRefusals, unexplained, imagesInUse, uses, domainsRunning, domainsStale, unreadable, evidenceUp, exceptionsActive, policyValid,
}
