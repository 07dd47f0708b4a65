package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	imgcopy "imgward/copy"
)

// copyAll copies the images, some at once. One that fails does not stop the others; an interruption stops all.
func (f *copyFlags) copyAll(ctx context.Context, jobs []*job, o imgcopy.Options) error {
	show, err := f.newReporter(jobs)
	if err != nil {
		return usageError{err}
	}
	defer show.end()
	errs := make([]error, len(jobs))
	slots := make(chan struct{}, f.jobs)
	var wg sync.WaitGroup
	for i, j := range jobs {
		slots <- struct{}{}
		if ctx.Err() != nil {
			errs[i] = context.Cause(ctx)
			<-slots
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f.copyOne(ctx, j, o, show)
		})
	}
	wg.Wait()
	return summary(jobs, errs)
}

func (f *copyFlags) copyOne(ctx context.Context, j *job, o imgcopy.Options, show *reporter) error {
	o.Progress, o.Manifest, o.Map = &j.prog, j.manifest, j.rescueMap
	o.Confirm = f.confirm
	if f.explain {
		o.Explain = func(s imgcopy.Step) { show.step(j, s) }
	}
	show.begin(j)
	result, err := imgcopy.Copy(ctx, j.from, j.to, o)
	show.finish(j, result, err)
	return err
}

// summary is the error of a whole run: the image's own if there was one, else which ones failed and why.
func summary(jobs []*job, errs []error) error {
	if len(jobs) == 1 {
		return errs[0]
	}
	failed := 0
	for i, err := range errs {
		if err != nil {
			failed++
			fmt.Fprintf(os.Stderr, "imgcp: %s: %s\n", printable(jobs[i].from), printable(err.Error()))
		}
	}
	if failed == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "imgcp: %d of %d images were copied, %d were not\n", len(jobs)-failed, len(jobs), failed)
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
