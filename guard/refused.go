package guard

// Refused implements Checker.
func (g *Guard) Refused(r *Request, v *Verdict) {
	path := ""
	if r.Path != nil {
		path = r.Path()
	}
	g.log.Warn("refused", "op", r.Op, "path", path, "pid", v.Caller.PID, "comm", v.Caller.Comm, "reason", v.Reason)
}
