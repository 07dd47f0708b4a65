// imgward keeps the disk images of running virtual machines from being destroyed by accident. See `imgward help`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "unknown" //nolint:gochecknoglobals // the linker sets it

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

// errNoView says that a service has nothing to serve.
var errNoView = errors.New("there is no view to serve")

// errQuiet ends a command with exit code 1 and no more words: its output has said it.
var errQuiet = errors.New("quiet")

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	root := newRoot()
	root.SetArgs(arguments(os.Args))
	err := root.ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(exitCode(err, interrupted))
}

func exitCode(err error, interrupted bool) int {
	if err != nil && !errors.Is(err, errQuiet) && !interrupted {
		fmt.Fprintf(os.Stderr, "imgward: %s\n", describe(err))
	}
	switch {
	case err == nil:
		return 0
	case interrupted:
		return exitInterrupted
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, errInUse):
		return exitInUse
	case errors.Is(err, errNoView):
		return exitNoView
	}
	return exitFailed
}

// describe adds what to do to errors that everybody meets.
func describe(err error) string {
	if errors.As(err, new(usageError)) {
		return err.Error() + " (see imgward help)"
	}
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return err.Error() + " (only root can do this)"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return err.Error() + " (the daemon is not there at this moment; try again)"
	}
	return err.Error()
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "imgward",
		Short: "Keep the disk images of running VMs from being destroyed",
		Long: `imgward mounts a view over an image directory. The view passes everything
through to the real files, at native speed, and refuses what would destroy
an image in use by a running virtual machine, whoever asks, root included.
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
	root.AddCommand(newMount(), newUmount(), newStatus(), newWho(), newCheck(), newEvents(), newAllow(), newPolicy(), newDoctor(), newGraph(), newTop(),
		newVersion(), newUpgrade(), newKeeper(), newTrial(), newWorker(), newPrepare(), newConclude())
	return root
}

// exactly is cobra.ExactArgs, as a usage error.
func exactly(n int) cobra.PositionalArgs { return usage(cobra.ExactArgs(n)) }

func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if cmd.HasParent() {
				err = fmt.Errorf("%s: %w", cmd.Name(), err)
			}
			return usageError{err}
		}
		return nil
	}
}
