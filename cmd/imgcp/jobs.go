// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	imgcopy "imgward/copy"
	"imgward/copy/checkpoint"
	"imgward/copy/move"
)

// copyAll copies the images, some at once. One that fails does not stop the others, but for those that need it; an interruption
// stops all.
func (f *copyFlags) copyAll(ctx context.Context, jobs []*job, o imgcopy.Options) error {
	show, err := f.newReporter(jobs)
	if err != nil {
		return usageError{err}
	}
	defer show.end()
	if f.chain {
		if err := f.refused(ctx, jobs, o); err != nil {
			return err
		}
	}
	errs := atOnce(f.jobs, len(jobs), func() error { return context.Cause(ctx) }, func(i int) error {
		j := jobs[i]
		defer close(j.ended)
		err := f.copyOne(ctx, j, o, show)
		j.failed = err != nil
		return err
	})
	if err := summary("not copied: %d of %d images", jobNames(jobs), errs); err != nil {
		return err
	}
	for _, j := range jobs {
		if j.chain == nil {
			continue
		}
		if err := checkpoint.ForgetWhole(j.to); err != nil {
			return err
		}
	}
	return nil
}

// atOnce calls do for each of n things, some at once, and begins none that begin refuses.
func atOnce(some, n int, begin func() error, do func(i int) error) []error {
	errs := make([]error, n)
	slots := make(chan struct{}, some)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		if errs[i] = begin(); errs[i] != nil {
			<-slots
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(i)
		})
	}
	wg.Wait()
	return errs
}

func (f *copyFlags) copyOne(ctx context.Context, j *job, o imgcopy.Options, show *reporter) error {
	o.Confirm = f.confirm
	if f.explain {
		o.Explain = func(s move.Step) { show.step(j, s) }
	}
	show.begin(j)
	result, err := f.copyJob(ctx, j, o)
	show.finish(j, result, err)
	return err
}

// options are the image's own.
func (j *job) options(o *imgcopy.Options) {
	o.Progress, o.Manifest, o.Map = &j.prog, j.manifest, j.rescueMap
	j.chain.options(o)
}

// copyJob waits for the files that this one needs: what can be seen under its name can be used.
func (f *copyFlags) copyJob(ctx context.Context, j *job, o imgcopy.Options) (imgcopy.Result, error) {
	if err := j.chain.ready(ctx); err != nil {
		return imgcopy.Result{}, err
	}
	if f.resume && j.whole() {
		return imgcopy.Result{Method: move.MethodDone}, nil
	}
	j.options(&o)
	result, err := imgcopy.Copy(ctx, j.from, j.to, o)
	if err == nil && j.chain != nil {
		err = checkpoint.NoteWhole(j.from, j.to)
	}
	return result, err
}

// jobNames are the images as they were named.
func jobNames(jobs []*job) []string {
	names := make([]string, len(jobs))
	for i, j := range jobs {
		names[i] = j.from
	}
	return names
}

// summary is the error of a whole run: the only image's or domain's own, else which ones failed and why, and what that means:
// how many of how many.
func summary(means string, names []string, errs []error) error {
	if len(names) == 1 {
		return errs[0]
	}
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "imgcp: %s: %s\n", printable(names[i]), printable(err.Error()))
		}
	}
	if failed == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "imgcp: "+means+"\n", failed, len(names))
	return errors.Join(errReported, commonError(errs))
}

// commonError is the kind of error that all failures share, so that its exit code may be used; else a plain failure.
func commonError(errs []error) error {
	var common error
	for _, err := range errs {
		if err == nil {
			continue
		}
		if common != nil && exitCode(err) != exitCode(common) {
			return errors.New("different failures")
		}
		common = err
	}
	return common
}
