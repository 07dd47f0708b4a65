// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"imgward/test/conformance/agent"
	"imgward/test/conformance/script"
)

// hangLimit is how long one operation may take. None but a broken one comes near it.
const hangLimit = 30 * time.Second

// runner runs cases at one place, with one agent for each user that they name.
type runner struct {
	place   *place
	agents  map[string]*agent.Client
	used    map[string]bool // by the variant that runs
	stamps  map[string]times
	inodes  map[string]string
	caseDir string
	// broken is set when a case left the place in a state that no other can start from.
	broken bool
	// frozen is set while the file system is read-only.
	frozen bool

	cases, variants, checks int
}

func newRunner(t *testing.T, p *place) *runner {
	r := &runner{place: p, agents: map[string]*agent.Client{}}
	t.Cleanup(func() {
		for _, a := range r.agents {
			a.Kill()
		}
	})
	return r
}

// lacking says why a case does not apply here; empty when it does.
func (r *runner) lacking(needs []string) string {
	for _, need := range needs {
		if reason := r.lacks(need); reason != "" {
			return reason
		}
	}
	return ""
}

// lacks says why a "needs" word cannot be satisfied here; empty when it can. "a|b" is either kind of file system.
func (r *runner) lacks(need string) string {
	switch need {
	case "scratch":
		if r.place.scratch == nil {
			return "needs a file system of its own, not IMGWARD_TEST_DIR"
		}
		return ""
	case "view":
		if r.place.kind() != "view" {
			return "is about what a view does not pass on"
		}
		return ""
	case "native":
		if r.place.kind() != "native" {
			return "FUSE has no way to ask for it"
		}
		return ""
	case "ext4", "xfs", "btrfs", "ext4|xfs", "ext4|btrfs", "xfs|btrfs", "ext4|xfs|btrfs":
		if !slices.Contains(strings.Split(need, "|"), r.place.fstype) {
			return "needs " + need + " at the bottom"
		}
		return ""
	}
	return "nobody knows what it needs: " + need
}

// runVariant runs the steps in an empty directory up to the first that fails.
func (r *runner) runVariant(t *testing.T, v script.Variant) {
	if r.broken {
		t.Fatal("an earlier case left the place in a state that no other can start from")
	}
	r.caseDir = filepath.Join(r.place.dir, "case")
	if err := os.Mkdir(r.caseDir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.used, r.stamps, r.inodes = map[string]bool{}, map[string]times{}, map[string]string{}
	ok := true
	for _, step := range v.Steps {
		if ok = r.runStep(t, step, v.Bindings); !ok {
			break
		}
	}
	if ok {
		r.compareWithBacking(t, v)
	}
	r.tidy(t)
}

func (r *runner) runStep(t *testing.T, s script.Step, bindings string) bool {
	r.checks++
	got, err := r.perform(s)
	var lost lostAgent
	switch {
	case errors.As(err, &lost):
		r.abandon(t, fmt.Errorf("%s [%s]: %w", s, bindings, err))
	case err != nil:
		got = err.Error()
	}
	if matches(got, s.Want) {
		return true
	}
	t.Errorf("%s [%s]\n\tgot  %s\n\twant %s", s, bindings, got, s.Want)
	return false
}

// matches compares a result with an expectation: "ok" is any success, "|" separates alternatives.
func matches(got, want string) bool {
	if want == "ok" {
		return !strings.HasPrefix(got, "fault:") && !errnoName.MatchString(got)
	}
	return slices.Contains(strings.Split(want, "|"), got)
}

var errnoName = regexp.MustCompile(`^E[A-Z0-9]+$|^errno\d+$`)

// perform does one step: the runner's own operations here, all others in the agent.
func (r *runner) perform(s script.Step) (string, error) {
	if own, ok := runnerOps[s.Op]; ok {
		return own(r, s)
	}
	reply, err := r.do(s.Who, agent.Request{Op: s.Op, Args: s.Args, Bind: s.Bind, Background: s.Background})
	if err != nil {
		return "", err
	}
	return r.namePIDs(reply.Result()), nil
}

func (r *runner) do(who string, req agent.Request) (agent.Reply, error) {
	a, err := r.agent(who)
	if err != nil {
		return agent.Reply{}, err
	}
	reply, err := a.Do(req, hangLimit)
	if err != nil {
		err = lostAgent{err}
	}
	return reply, err
}

// lostAgent is an agent that died or hangs.
type lostAgent struct{ error }

// agent gives the process for "uid:gid,groups/letter", started on first use and in the case's directory.
func (r *runner) agent(who string) (*agent.Client, error) {
	if who == "" {
		who = "0"
	}
	a := r.agents[who]
	if a == nil {
		credentials, _, _ := strings.Cut(who, "/")
		var err error
		if a, err = agent.Start(credentials); err != nil {
			return nil, err
		}
		r.agents[who] = a
	}
	if !r.used[who] {
		r.used[who] = true
		reply, err := a.Do(agent.Request{Op: "chdir", Args: []string{r.caseDir}}, hangLimit)
		if err != nil || reply.Errno != 0 {
			return nil, fmt.Errorf("chdir %s: %v %s", r.caseDir, err, reply.Result())
		}
	}
	return a, nil
}

// tidy leaves the agents and the place as a new case wants them.
func (r *runner) tidy(t *testing.T) {
	for who := range r.used {
		a, alive := r.agents[who]
		if !alive {
			continue
		}
		for _, req := range []agent.Request{{Op: "reset"}, {Op: "chdir", Args: []string{"/"}}} {
			if _, err := a.Do(req, hangLimit); err != nil {
				r.abandon(t, err)
			}
		}
	}
	if r.frozen {
		if _, err := r.readOnly(script.Step{Args: []string{"off"}}); err != nil {
			r.abandon(t, err)
		}
	}
	if err := removeAll(r.caseDir); err != nil {
		r.abandon(t, fmt.Errorf("the case's directory cannot be removed: %w", err))
	}
}

// abandon ends the run at this place: something hangs or is in a state that no other case can start from.
func (r *runner) abandon(t *testing.T, err error) {
	t.Helper()
	r.broken = true
	if r.place.mount != nil {
		t.Logf("the daemon has said:\n%s", r.place.mount.Log())
		if err := r.place.mount.Abort(); err != nil {
			t.Log(err)
		}
	}
	t.Fatal(err)
}

var pid = regexp.MustCompile(`pid:\d+`)

// namePIDs writes the process ids of agents as their names, which a case can know.
func (r *runner) namePIDs(result string) string {
	return pid.ReplaceAllStringFunc(result, func(text string) string {
		for who, a := range r.agents {
			if text == fmt.Sprintf("pid:%d", a.PID()) {
				return "@" + who
			}
		}
		return text
	})
}
