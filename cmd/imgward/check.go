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
		Short: "Tell whether an operation would be refused",
		Long: `Tell whether OP (truncate, write, unlink or rename) on PATH would be refused to
you. Nothing is done to the file.

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
	view, rel, err := control.Find(path)
	if errors.Is(err, control.ErrNoView) {
		return control.Verdict{Type: "verdict", Op: o, Path: path, Allowed: true, Reason: "it is not inside a view: nothing protects it"}, nil
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
	word := "refused"
	if v.Allowed {
		word = "allowed"
	}
	if v.Reason == "" {
		return fmt.Sprintf("%s of %s: %s", v.Op, v.Path, word)
	}
	return fmt.Sprintf("%s of %s: %s: %s", v.Op, v.Path, word, v.Reason)
}
