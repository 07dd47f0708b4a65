// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/control"
)

func newCheck() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check OP PATH",
		Short: "Ask whether something would be refused, and do nothing",
		Long: `Tell whether OP on PATH would be refused to you, and why. Nothing is done to
the file. OP is one of
  truncate, write, unlink, rename, set-flags    as imgward allow has them, or
  write-data, fallocate, copy-into, replace, rename-dir    as events name them.
Of a directory it can be rename: that moves the images below it.

EXIT STATUS
  0    it would be allowed
  1    failed
  2    wrong usage
  3    it would be refused
`,
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := wouldBe(cmd, args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(v)
			} else {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), verdictLine(v))
			}
			if err == nil && !v.Allowed {
				err = errors.Join(errInUse, errQuiet)
			}
			return err
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

func wouldBe(cmd *cobra.Command, op, path string) (v control.Verdict, err error) {
	o, err := control.ParseOp(op)
	if err != nil {
		return v, usageError{err}
	}
	if isDevice(path) && !control.SecondRuns() {
		return control.Verdict{Type: "verdict", Op: o, Path: path, Allowed: true, Reason: "the guard does not run: nothing protects block devices (imgward guard)"}, nil
	}
	view, rel, err := place(path)
	if errors.Is(err, control.ErrNoView) {
		return control.Verdict{Type: "verdict", Op: o, Path: path, Allowed: true, Reason: "it is not inside a view: nothing protects it"}, nil
	}
	if errors.Is(err, control.ErrBeside) {
		return control.Verdict{Type: "verdict", Op: o, Path: path, Allowed: true, Reason: err.Error()}, nil
	}
	if err != nil {
		return v, err
	}
	err = control.Dial(view).Get(cmd.Context(), "check", url.Values{"op": {op}, "path": {rel}}, func(line []byte) error {
		return json.Unmarshal(line, &v)
	})
	v.Path = path
	return v, err
}

func verdictLine(v control.Verdict) string {
	word, why := "refused", v.Reason
	switch {
	case !v.Allowed && v.Below != "":
		why = fmt.Sprintf("of %s below it, %s", shown(v.Below), v.Reason)
	case !v.Allowed:
	case v.Exception != 0:
		word, why = "allowed", fmt.Sprintf("exception %d", v.Exception)
	case v.Audit:
		word, why = "allowed", fmt.Sprintf("audit only (%s)", v.Reason)
	case v.Reason == "":
		word, why = "allowed", "it is not in use"
	default:
		word = "allowed"
	}
	return fmt.Sprintf("%s of %s: %s: %s", v.Op, shown(v.Path), word, why)
}
