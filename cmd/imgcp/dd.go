// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	imgcopy "imgward/copy"
	"imgward/copy/dd"
	"imgward/copy/dest"
)

const ddHelp = `Copy with dd's operands and dd's result, but not over an image in use.

A file that exists is not truncated without --overwrite; conv=notrunc and
oflag=append do not need it. A new file appears when it is whole.
if=/dev/zero reserves blocks instead of writing zeroes.

OPERANDS
  if=FILE of=FILE            instead of standard input and output
  bs= ibs= obs=              block sizes in bytes (512)
  count= skip= seek=         in blocks; with a B in the number, in bytes
  conv=                      notrunc sparse fsync fdatasync excl nocreat
                             noerror sync swab lcase ucase
  iflag= oflag=              append direct dsync sync fullblock nonblock
                             noatime nocache noctty nofollow directory
                             count_bytes skip_bytes seek_bytes
  status=                    none noxfer progress

Numbers take the suffixes c w b kB K MB M GB G …, and factors: 2x512.
SIGUSR1 prints the statistics so far.
`

// ddFlags are the flags of imgcp dd; everything else is operands.
type ddFlags struct {
	copyFlags
	allow bool // to overwrite
}

func newDDCommand() *cobra.Command {
	var f ddFlags
	c := &cobra.Command{
		Use:   "dd [OPTIONS] [OPERAND]…",
		Short: "Copy with dd's operands, guarded and fast",
		Long:  ddHelp,
		Example: `  imgcp dd if=/dev/zero of=vm1-disk2.img bs=1G count=40
  imgcp dd if=boot.bin of=vm1.img bs=512 count=1 conv=notrunc`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: completeOperand,
		RunE:              func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), args) },
	}
	c.Flags().BoolVar(&f.allow, "overwrite", false, "truncate or overwrite what exists, if nobody uses it")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask before a block device is overwritten")
	c.Flags().StringVar(&f.live, "live", "", "read a disk that a running domain writes to; `WAY`: suspend-reflink, backup, torn")
	f.defineRate(c.Flags())
	return c
}

func (f *ddFlags) run(ctx context.Context, args []string) error {
	op, err := dd.Parse(args)
	if err != nil {
		return usageError{err}
	}
	w, err := newWorld(slog.LevelInfo)
	if err != nil {
		return err
	}
	defer w.close()
	o := imgcopy.Defaults()
	o.Users, o.Locks, o.Log, o.Confirm = w.users, imageLocks{}, w.log, f.confirm
	if f.allow {
		o.Overwrite = dest.InPlace
	}
	if o.Live, err = f.liveWay(w); err != nil {
		return usageError{err}
	}
	if o.Limit, err = f.limit(); err != nil {
		return usageError{err}
	}
	d := dd.New(op, o)
	m := &ddMeter{d: d, status: op.Status, w: os.Stderr, begun: time.Now()}
	end := m.start()
	err = d.Run(ctx)
	end()
	return err
}

// ddMeter prints what dd prints.
type ddMeter struct {
	d      *dd.Copier
	status dd.Status
	w      io.Writer
	begun  time.Time
	drawn  bool // a line of status=progress stands there, without its end
}

// start prints progress and answers SIGUSR1 until end is called, which prints the final report.
func (m *ddMeter) start() (end func()) {
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	stop, done := make(chan struct{}), make(chan struct{})
	var ticks <-chan time.Time
	ticker := time.NewTicker(time.Second)
	if m.status == dd.Progress {
		ticks = ticker.C
	}
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-usr1:
				m.report()
			case <-ticks:
				fmt.Fprint(m.w, "\r\x1b[K"+m.d.Stats().ProgressLine(time.Since(m.begun)))
				m.drawn = true
			}
		}
	}()
	return func() {
		signal.Stop(usr1)
		ticker.Stop()
		close(stop)
		<-done
		if m.status != dd.None && m.d.Begun() {
			m.report()
		}
	}
}

func (m *ddMeter) report() {
	if m.drawn {
		fmt.Fprintln(m.w)
		m.drawn = false
	}
	s := m.d.Stats()
	fmt.Fprint(m.w, s.Records())
	if m.status != dd.NoXfer {
		fmt.Fprintln(m.w, s.Transfer(time.Since(m.begun)))
	}
}
