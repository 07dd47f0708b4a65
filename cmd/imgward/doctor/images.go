package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"sort"

	"imgward/guard"
)

// images looks at what running domains use: is it below a view, and was it opened through it?
func (h *Host) images(ctx context.Context) []Finding {
	g, err := guard.New(guard.Config{Log: h.Log, Brief: true})
	if err != nil {
		return []Finding{problem("who uses what cannot be found out: "+err.Error(), "")}
	}
	defer g.Close()
	uses := g.InUse(ctx)
	var list []Finding
	protected := 0
	for id, us := range uses {
		f := h.image(id, us)
		if f == nil {
			protected++
			continue
		}
		list = append(list, *f)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].What < list[j].What })
	if protected > 0 {
		list = append(list, ok(fmt.Sprintf("%d images in use are below a view", protected)))
	}
	return list
}

// image is nil for one that is protected.
func (h *Host) image(id guard.ID, uses []guard.Use) *Finding {
	u := uses[0]
	name := u.Path
	if name == "" {
		name = fmt.Sprintf("an image (device %d, inode %d)", id.Dev, id.Ino)
	}
	who := u.Domain
	if who == "" {
		who = fmt.Sprintf("pid %d", u.PID)
	}
	if u.Evidence == guard.EvidenceProcess && (within(name, "/run") || within(name, "/var/log")) {
		return nil // a pid file or a log, open in a VMM like everything else that it has open
	}
	switch {
	case id == guard.ID{}:
		f := problem("the status file of "+who+" cannot be read: every image counts as in use", "see imgward status")
		return &f
	case id.Dev == guard.BlockDevice:
		f := note(fmt.Sprintf("%s (%s of %s) is a block device: a view protects files only", name, u.Target, who),
			"imgward who "+name+" before anything is done to it")
		return &f
	}
	v := h.covering(name)
	if v == nil {
		f := problem(fmt.Sprintf("%s (%s of %s) is below no view: it is not protected", name, u.Role, who),
			"imgward mount "+filepath.Dir(name))
		return &f
	}
	for _, u := range uses {
		if u.Evidence == guard.EvidenceProcess && v.Backing == v.Mountpoint {
			f := note(fmt.Sprintf("%s was opened by %s (pid %d) before the view was mounted", name, who, u.PID),
				"it is protected all the same; at the VM's next start or migration its I/O goes through the view")
			return &f
		}
	}
	return nil
}

func (h *Host) covering(path string) *View {
	for i := range h.Views {
		if within(path, h.Views[i].Mountpoint) {
			return &h.Views[i]
		}
	}
	return nil
}

// within says whether a path is a directory or below it. Both are clean and absolute.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
