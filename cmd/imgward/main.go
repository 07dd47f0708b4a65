// SPDX-License-Identifier: Apache-2.0

// imgward keeps the disk images of running virtual machines from being destroyed by accident. See `imgward help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"imgward/cmd/buildversion"
	"imgward/cmd/imgward/daemon"
	"imgward/cmd/output"
)

// linkedVersion is set by the Makefile.
var linkedVersion string //nolint:gochecknoglobals // the linker sets it

var version = buildversion.Of(linkedVersion) //nolint:gochecknoglobals // never changes

// Exit codes. Numbers are never reused.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInUse       = 3
	exitNoView      = 78 // for the service manager alone: there is nothing to serve, and another try would not help
	exitInterrupted = 130
)

const exitHelp = `
EXIT STATUS
  0    done
  1    failed
  2    wrong usage
  3    refused, because an image is in use
  130  interrupted
`

// errInUse is a refusal: the command asked for something that would harm an image in use.
var errInUse = errors.New("in use")

// errQuiet ends a command with exit code 1 and no more words: its output has said it.
var errQuiet = daemon.ErrSaid

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// isUsage says whether a command was called wrongly.
func isUsage(err error) bool {
	return errors.As(err, new(usageError)) || errors.As(err, new(daemon.UsageError))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	root := newRoot()
	root.SetArgs(arguments(os.Args))
	out := &output.Checked{Writer: os.Stdout}
	root.SetOut(out)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		err = out.Err
	}
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(exitCode(cmd, err, interrupted))
}

func exitCode(cmd *cobra.Command, err error, interrupted bool) int {
	if err != nil && !errors.Is(err, errQuiet) && !interrupted {
		fmt.Fprintf(os.Stderr, "imgward: %s\n", describe(cmd, err))
	}
	switch {
	case err == nil:
		return 0
	case interrupted:
		return exitInterrupted
	case isUsage(err):
		return exitUsage
	case errors.Is(err, errInUse):
		return exitInUse
	case errors.Is(err, daemon.ErrNoView):
		return exitNoView
	}
	return exitFailed
}

// describe adds what to do to errors that everybody meets.
func describe(cmd *cobra.Command, err error) string {
	if isUsage(err) {
		return err.Error() + " (see " + cmd.CommandPath() + " --help)"
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return err.Error() + " (only root can do this)"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return err.Error() + " (no daemon serves it at this moment: try again. If it stays so, the view is dead: umount -l it, and mount it again)"
	}
	return err.Error()
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "imgward",
		Short: "Keep the disk images of running VMs from being destroyed",
		Long: `imgward protects the disk images of running virtual machines. It mounts a view
over the image directory. Programs work through it as before, but nobody, not
even root, can truncate, overwrite, remove or rename a disk in use.
` + exitHelp,
		Example: `  imgward mount /var/lib/libvirt/images     protect the directory in place
  imgward status                            what is in use, and by whom
  imgward who vm-disk2.img                  who uses this file
  imgward check truncate vm-disk2.img       would this be refused?
  imgward umount /var/lib/libvirt/images    end the protection`,
		Args:          usage(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	addCommands(root)
	complete(root)
	return root
}

// exactly is cobra.ExactArgs, as a usage error.
func exactly(n int) cobra.PositionalArgs { return usage(cobra.ExactArgs(n)) }

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			cmd.SuggestionsMinimumDistance = 2
			switch unknown := strings.HasPrefix(err.Error(), "unknown command"); {
			case unknown && len(cmd.SuggestionsFor(args[0])) > 0:
				err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(cmd.SuggestionsFor(args[0]), " or "))
			case cmd.HasParent() && !unknown:
				line, _, _ := strings.Cut(cmd.UseLine(), "\n") // cobra's own words count "arg(s)"
				err = errors.New("wrong number of arguments: " + line)
			}
			return usageError{err}
		}
		return nil
	}
}
