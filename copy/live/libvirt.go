// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"

	"imgward/copy/domain/libvirtd"
)

// Libvirt is what is asked of libvirt (libvirtd.Conn). Errors that callers look for: libvirtd.ErrNoDomain, and
// libvirtd.ErrInvalid where a domain is not in the state that the call is for.
type Libvirt interface {
	// Domain and Again find a domain by name and by UUID.
	Domain(ctx context.Context, name string) (libvirtd.Domain, error)
	Again(ctx context.Context, d libvirtd.Domain) (libvirtd.Domain, error)
	State(ctx context.Context, d libvirtd.Domain) (string, error)
	XML(ctx context.Context, d libvirtd.Domain, x libvirtd.XML) (string, error)
	AgentAnswers(ctx context.Context, d libvirtd.Domain) bool
	Job(ctx context.Context, d libvirtd.Domain, completed bool) (libvirtd.Job, error)

	Suspend(ctx context.Context, d libvirtd.Domain) error
	Resume(ctx context.Context, d libvirtd.Domain) error
	FreezeFS(ctx context.Context, d libvirtd.Domain) error
	ThawFS(ctx context.Context, d libvirtd.Domain) error
	BeginBackup(ctx context.Context, d libvirtd.Domain, xml string) error
	AbortJob(ctx context.Context, d libvirtd.Domain) error
}

// find finds a domain by its UUID or its name.
func find(ctx context.Context, l Libvirt, name string) (libvirtd.Domain, error) {
	if d, err := libvirtd.Gone(name, name); err == nil {
		return l.Again(ctx, d)
	}
	return l.Domain(ctx, name)
}
