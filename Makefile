# SPDX-License-Identifier: Apache-2.0
# imgward: build, lint, test. `make help` lists the targets; CONTRIBUTING.md says how to run a single test.

GO          ?= go
# A commit after a release is the release and the commit; without git, as in a source tarball, the release alone.
RELEASE     := $(shell sed -n 's/^\#\# \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
VERSION     ?= $(shell cat .version 2>/dev/null || git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null | sed 's/^v//' | grep . || \
                 { c=$$(git describe --always --dirty --exclude '*' 2>/dev/null) && echo "$(RELEASE)+git$$c" || echo $(RELEASE); })
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ERRCHECK    := github.com/kisielk/errcheck@v1.10.0
REVIVE      := github.com/mgechev/revive@v1.15.0
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.3
LDFLAGS     := -s -w -X main.linkedVersion=$(VERSION)

# Static and without build paths, so that the same commit gives the same bytes anywhere.
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# `go list` of package trees; each suite is some of them, and `system` is what no other suite has.
list  = $(shell $(GO) list $(1) 2>/dev/null)
UNIT  = $(call list,./cmd/... ./copy/... ./fs/... ./guard/... ./test/guest/... ./test/lint/... ./test/need/... ./test/gotest/... ./test/quiet/...)
VIEW  = $(call list,./fs/... ./test/conformance/...)
SUITE = ./test/e2e ./test/torture $(addsuffix /...,./test/conformance ./test/guest ./test/lint ./test/need ./test/gotest ./test/quiet)
SYSTEM = $(filter-out $(call list,$(SUITE)),$(call list,./test/...))

GOTEST := $(GO) run ./test/gotest
PREFLIGHT := $(GO) run ./test/need/preflight

# Some run at a time, in this order: the longest first. They wait as much as they compute.
CORE := refuse unit conformance legit system torture-short
LONG := race single-cpu conformance-overlay

.DEFAULT_GOAL := build
.NOTPARALLEL:
.PHONY: help deps build ready lint unit race single-cpu conformance-overlay refuse legit torture-short system test test-all ci preflight-test preflight-test-all preflight-demo demo recording pictures bench bench-view bench-survive bench-copy conformance fuzz torture packages install uninstall tarball man clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what tests need (Debian packages, a guest kernel); quick when all is there
	@test/scripts/deps

build: ## bin/imgward and bin/imgcp
	@mkdir -p bin
	@for cmd in imgward imgcp; do \
	  if ls cmd/$$cmd/*.go >/dev/null 2>&1; then echo "build bin/$$cmd"; $(GOBUILD) -o bin/$$cmd ./cmd/$$cmd || exit 1; fi; \
	done

# What ships: tests are looked at by vet and staticcheck.
PROGRAMS := ./cmd/... ./fs/... ./copy/... ./guard/...

lint: ## gofmt, go vet, staticcheck, errors that nobody looks at, comments, layering, file sizes
	@test/scripts/gofmt-check
	@test/scripts/skip-check
	@test/scripts/spdx-check
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(ERRCHECK) -ignoretests -exclude .errcheck $(PROGRAMS)
	$(GO) run $(REVIVE) -config .revive.toml -set_exit_status -exclude ./copy/internal/... -exclude ./guard/internal/... $(PROGRAMS)
	$(GO) run ./test/lint/layers

preflight-test:
	@$(PREFLIGHT) test 'builds, and runs the core of every suite, with real libvirtd and QEMU; on two cores about ten minutes.' \
	  'Installs what is missing (deps, some 30 Debian packages and two kernels for guests); starts no service.'

preflight-test-all:
	@$(PREFLIGHT) test-all 'runs every suite in full, those of make test included; on two cores about 35 minutes.' \
	  'Installs what is missing (deps, some 30 Debian packages and two kernels for guests); starts no service.'

preflight-demo:
	@$(PREFLIGHT) demo 'a virtual machine in a scratch directory, the accident, and its evacuation to a second libvirtd; one to two minutes.' \
	  'Installs what is missing (deps, some 30 Debian packages and two kernels for guests); starts no service.'

test: preflight-test deps build ## the core of every suite, then a check that nothing is left behind: ten minutes
	@LANES=3 test/scripts/suites $(CORE)

test-all: preflight-test-all deps build ## every suite in full: what make test does, all kinds and names, races, single CPU
	@IMGWARD_TEST_ALL=1 test/scripts/suites $(LONG) $(CORE)

# test-all has all of test in it, so that runs once.
ci: preflight-test-all deps build ## lint + test + test-all; what .ci/run runs
	@IMGWARD_TEST_ALL=1 test/scripts/suites $(LONG) $(CORE) lint

# What a suite needs first; the targets that run several have seen to it.
ifdef IMGWARD_TEST_RUN
ready:
else
ready: deps build
endif

unit: ## the packages' own tests, once
	@$(GOTEST) unit $(UNIT)

# The guard, the copy engine and the view's handle table are where goroutines meet.
race: ## the same with the race detector (cgo is needed for that alone)
	@CGO_ENABLED=1 $(GOTEST) race -race $(UNIT)

# One P: a FUSE server that waits for its own reply deadlocks here and nowhere else. Natively nothing of ours runs.
single-cpu: ready ## the view's own tests with GOMAXPROCS=1
	@GOMAXPROCS=1 IMGWARD="$(CURDIR)/bin/imgward" IMGWARD_TEST_TARGETS=view,view-nopassthrough $(GOTEST) single-cpu $(VIEW)

conformance: ready ## POSIX and Linux semantics on a mounted view
	@IMGWARD="$(CURDIR)/bin/imgward" $(GOTEST) conformance ./test/conformance/...

conformance-overlay: ready ## the same over a directory without file handles
	@IMGWARD="$(CURDIR)/bin/imgward" IMGWARD_TEST_FS=overlay IMGWARD_TEST_TARGETS=view $(GOTEST) overlay ./test/conformance

refuse: ready ## what must be refused, on running domains (needs root); all of test/e2e but TestLegit
	@IMGWARD_BIN="$(CURDIR)/bin" $(GOTEST) refuse -skip '^TestLegit' ./test/e2e

legit: ready ## what must not be hindered, likewise
	@IMGWARD_BIN="$(CURDIR)/bin" $(GOTEST) legit -run '^TestLegit' ./test/e2e

torture-short: ready ## every kind of torture, for some seconds
	@IMGWARD_BIN="$(CURDIR)/bin" $(GOTEST) torture ./test/torture

system: ready ## policy, systemd, packages, the demo, and whatever else is below test/
	@IMGWARD_BIN="$(CURDIR)/bin" $(GOTEST) system -p 1 $(SYSTEM)

demo: preflight-demo deps build ## the story in the terminal, on a real running domain in a scratch directory
	@$(GO) test -c -o bin/demo ./test/demo && IMGWARD_BIN="$(CURDIR)/bin" bin/demo

recording: preflight-demo deps build ## docs/pictures/demo.svg: the demo as it runs, drawn
	@$(GO) test -c -o bin/demo ./test/demo && IMGWARD_BIN="$(CURDIR)/bin" script -qec bin/demo /dev/null </dev/null | $(GO) run ./test/demo/record >docs/pictures/demo.svg.new
	@mv docs/pictures/demo.svg.new docs/pictures/demo.svg

pictures: build ## docs/pictures/overview.svg from its source, and cockpit.png from the page (needs graphviz, and what test/cockpit needs)
	dot -Tsvg docs/pictures/overview.dot | awk 'FNR == NR { css = css $$0 "\n"; next } /<g id="graph0"/ { printf "<style>\n%s</style>\n", css } 1' \
	  docs/pictures/overview.css - >docs/pictures/overview.svg.new
	@mv docs/pictures/overview.svg.new docs/pictures/overview.svg
	IMGWARD_BIN="$(CURDIR)/bin" $(GO) test -count=1 ./test/cockpit -picture "$(CURDIR)/docs/pictures/cockpit.png"

bench: bench-view bench-survive bench-copy ## all benchmarks

bench-view: deps build ## the view against the native directory and its peers
	$(GO) run ./test/benchview
	$(GO) test ./guard -run '^$$' -bench Decision/10000 -benchtime 1000x

bench-survive: build ## the pause when the daemon is killed
	$(GO) run ./test/benchsurvive

bench-copy: deps build ## imgcp against cp, dd, qemu-img, nbdcopy, ddrescue; in parts: BENCH_FS=xfs BENCH_ROWS=small,empty
	$(GO) run ./test/benchcopy $(if $(BENCH_FS),-fs $(BENCH_FS)) $(if $(BENCH_ROWS),-rows $(BENCH_ROWS))

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	@test/scripts/fuzz

torture: deps build ## a writing guest while the daemon is killed, for TORTURE (default 10m)
	IMGWARD_TEST_ALL=1 $(GO) test -count=1 -timeout 0 -v ./test/torture -torture.for=$(or $(TORTURE),10m)

# Who answers for the packages: distributions say so for themselves.
MAINTAINER ?= imgward packagers <packagers@imgward.invalid>
# A package's version has no hyphen: after it, Debian has its own revision.
PKGVERSION = $(subst -,.,$(VERSION))
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export MAINTAINER SOURCE_DATE_EPOCH

packages: ## deb and rpm for amd64 and arm64 into dist/out (MAINTAINER="Name <address>")
	@VERSION=$(PKGVERSION) dist/packages/stage amd64 arm64
	@for arch in amd64 arm64; do for kind in deb rpm; do \
	  ARCH=$$arch VERSION=$(PKGVERSION) $(GO) run $(NFPM) package -f dist/packages/nfpm.yaml -p $$kind -t dist/out || exit 1; \
	done; done

# As the GNU coding standards name them: make install DESTDIR=/tmp/stage PREFIX=/usr
PREFIX      ?= /usr/local
SYSCONFDIR  ?= /etc
UNITDIR     ?= $(PREFIX)/lib/systemd/system

install: build ## into PREFIX (default /usr/local), below DESTDIR if that is given; a policy that is there stays
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" UNITDIR="$(UNITDIR)" dist/packages/install

uninstall: ## remove what install has put there, but for the policy; umount the views first
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" UNITDIR="$(UNITDIR)" dist/packages/install --remove

tarball: ## the source, with all that it needs of others (vendor/), into dist/out/imgward-VERSION.tar.gz
	@VERSION=$(PKGVERSION) dist/packages/tarball

man: ## show that the man pages are free of mistakes
	@for page in dist/man/*; do man --warnings -E UTF-8 -l -Tutf8 -Z $$page 2>&1 >/dev/null | sed "s|^|$$page: |" | grep . && exit 1; done; true

clean: ## remove what the build made
	rm -rf bin dist/out
