// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"imgward/guard/libvirt"
	"imgward/guard/policy"
	"imgward/guard/procfs"
)

// inForce is the policy in force, with what follows from it. A verdict is reached under one, however long it takes.
type inForce struct {
	policy *policy.Policy
	procs  *procfs.Classifier
	// defined are the persistent domains, running or not; nil where no rule protects their images.
	defined *domains
}

func (g *Guard) newInForce(p *policy.Policy) *inForce {
	r := &inForce{policy: p, procs: &procfs.Classifier{
		FS:   procfs.FS{Root: g.config.ProcRoot, Host: g.config.HostRoot},
		VMMs: p.Processes.VMMs, VMMNames: policy.VMMNames(), VMMCgroups: p.Processes.VMMCgroups, Managers: p.Processes.Managers,
		Trusted: p.Processes.Trusted, TrustedCgroups: p.Processes.TrustedCgroups, Aligned: p.Processes.Aligned,
	}}
	if p.Uses(policy.Defined) {
		index := libvirt.New(libvirt.Config{Dirs: g.config.DefinitionDirs, PoolDirs: g.config.PoolDirs, Files: libvirt.Definitions})
		r.defined = newDomains(g.config.Host, r.procs.FS, index, g.isVMM)
		r.defined.evidence, r.defined.unreadable = EvidencePolicy, g.domainUnreadable
	}
	return r
}

// Policy is the policy that holds now.
func (g *Guard) Policy() *policy.Policy { return g.inForce.Load().policy }

// SetPolicy puts another policy in the place of the present one, at once and for every request that comes after. The
// caller has parsed it, so there is nothing that could fail half-way.
func (g *Guard) SetPolicy(p *policy.Policy) {
	g.inForce.Store(g.newInForce(p))
	g.log.Info("policy in force", "source", p.Source, "rules", len(p.Rules))
	g.events.Publish(&Event{Type: EventPolicy, Source: p.Source})
	g.wake()
}
