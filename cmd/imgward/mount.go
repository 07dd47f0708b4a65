package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"imgward/cmd/imgward/metrics"
	viewfs "imgward/fs"
)

// mountFlags are the options of mount as they are typed; they are handed on to the keeper and the worker unchanged.
type mountFlags struct {
	foreground bool
	options    []string
	backing    string
	logFile    string
}

func newMount() *cobra.Command {
	var f mountFlags
	c := &cobra.Command{
		Use:   "mount [-f] [-o OPTIONS] [--backing DIR] DIR",
		Short: "Protect a directory in place, or show another one there",
		Long: `Mount the view over DIR, so that all tools go through it, and keep it mounted
in the background. With --backing, DIR shows another directory instead.

OPTIONS are separated by commas: nopassthrough (do not let the kernel pass
reads and writes through), nostandby (do not keep a second process ready to
take over: saves some MiB, costs some milliseconds), policy=FILE, metrics=127.0.0.1:PORT (Prometheus
metrics for local scrapers), and mount(8)'s own (ro, nosuid, …); by default
the view has the mount flags of what it shows.
` + exitHelp,
		Example: `  imgward mount /var/lib/libvirt/images
  imgward mount --backing /srv/images /mnt/images
  imgward mount -o ro,nosuid /srv/templates`,
		Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error { return f.run(args[0]) },
	}
	f.define(c)
	c.Flags().BoolVarP(&f.foreground, "foreground", "f", false, "stay in the foreground")
	return c
}

func (f *mountFlags) define(c *cobra.Command) {
	c.Flags().StringSliceVarP(&f.options, "options", "o", nil, "mount `OPTIONS`")
	c.Flags().StringVar(&f.backing, "backing", "", "the `DIR`ectory to show (default: the mountpoint itself)")
	c.Flags().StringVar(&f.logFile, "log", "", "append the log to `FILE` (default: the journal, or "+defaultLog+")")
}

// args are the flags as arguments again.
func (f *mountFlags) args(mountpoint string) []string {
	args := []string{"--backing", f.backing, "--log", f.logFile}
	for _, o := range f.options {
		args = append(args, "-o", o)
	}
	return append(args, "--", mountpoint)
}

// viewOptions turns the flags into the view's options. The mountpoint must have been made absolute.
func (f *mountFlags) viewOptions(mountpoint string) (o viewfs.Options, policy string, err error) {
	o = viewfs.Options{Mountpoint: mountpoint, Backing: f.backing, Passthrough: true}
	for _, opt := range f.options {
		name, value, _ := strings.Cut(opt, "=")
		switch {
		case name == "":
		case name == "nopassthrough":
			o.Passthrough = false
		case name == noStandby: // the keeper's
		case name == "policy":
			policy = value
		case name == "metrics":
			if err := metrics.CheckAddress(value); err != nil {
				return o, "", usageError{err}
			}
		case viewfs.KnownFlag(name):
			o.Flags = append(o.Flags, name)
		case name == "defaults" || name == "auto" || name == "noauto" || name == "nofail" || name == "_netdev" ||
			name == "user" || strings.HasPrefix(name, "x-"):
			// mount(8) and systemd keep these to themselves
		default:
			return o, "", usageError{fmt.Errorf("unknown mount option %q", opt)}
		}
	}
	return o, policy, nil
}

func (f *mountFlags) run(dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can mount a view: the image directory is root's")
	}
	if f.underSystemd() {
		return f.serveUnderSystemd(dir)
	}
	mountpoint, err := resolve(dir)
	if err != nil {
		return err
	}
	if f.backing == "" {
		f.backing = mountpoint
	} else if f.backing, err = resolve(f.backing); err != nil {
		return err
	}
	if err := f.absolutePolicy(); err != nil {
		return err
	}
	o, _, err := f.viewOptions(mountpoint)
	if err != nil {
		return err
	}
	if err := viewfs.CheckTarget(&o); err != nil {
		return err
	}
	if f.foreground {
		return runKeeper(f, mountpoint, &origin{})
	}
	return f.daemonise(mountpoint)
}

// resolve makes a path absolute and free of symbolic links. A dead mount there is named as one.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, syscall.ENOTCONN) {
		return "", fmt.Errorf("%s %w (umount -l %s, then try again)", dir, viewfs.ErrStale, dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", dir, syscall.ENOENT)
	}
	return path, err
}

// daemonise starts the keeper and waits until the view serves. Until then the daemon's words come to this terminal.
func (f *mountFlags) daemonise(mountpoint string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{"keeper"}, f.args(mountpoint)...)...)
	cmd.Args[0] = "imgward" // not mount.imgward
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	w.Close()
	answer, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("wait for the daemon: %w", err)
	}
	if string(answer) == readyWord {
		return nil
	}
	_ = cmd.Wait()
	return errQuiet // the daemon has said why
}

// noStandby is the mount option that has the keeper do without a standby.
const noStandby = "nostandby"

// readyWord is what the keeper writes to its starter once the view serves.
const readyWord = "ready\n"
