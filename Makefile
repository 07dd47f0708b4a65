# imgward: build, lint, test. `make help` lists the targets; CONTRIBUTING.md says how to run a single test.

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
NFPM        := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.3
LDFLAGS     := -s -w -X main.version=$(VERSION)

# Static and without build paths, so that the same commit gives the same bytes anywhere.
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# The packages that mount, boot guests or measure have targets of their own; the rest is plain `go test`.
UNIT  = $(shell $(GO) list ./cmd/... ./copy/... ./fs/... ./guard/... ./test/guest/... ./test/lint/... 2>/dev/null)
MOUNT = $(shell $(GO) list ./fs/... ./test/conformance/... 2>/dev/null)
E2E   := ./test/harness/... ./test/e2e/... ./test/policy/... ./test/systemd/... ./test/packages/... ./test/torture/... ./test/demo/...

# Each test binary has its own deadline, well under the half hour that the whole of `make ci` may take.
UNIT_TIMEOUT := 15m
E2E_TIMEOUT  := 25m

.DEFAULT_GOAL := build
.PHONY: help deps build lint unit race single-cpu e2e legit test ci demo bench bench-view bench-survive bench-copy conformance fuzz torture packages man clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what tests need (Debian packages, a guest kernel); quick when all is there
	@test/scripts/deps

build: ## bin/imgward and bin/imgcp
	@mkdir -p bin
	@for cmd in imgward imgcp; do \
	  if ls cmd/$$cmd/*.go >/dev/null 2>&1; then echo "build bin/$$cmd"; $(GOBUILD) -o bin/$$cmd ./cmd/$$cmd || exit 1; fi; \
	done

lint: ## gofmt, go vet, staticcheck, layering, file sizes
	@test/scripts/gofmt-check
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run ./test/lint/layers

unit: ## the packages' own tests, once
	@test/scripts/gotest unit -timeout $(UNIT_TIMEOUT) $(UNIT) $(MOUNT)

# The guard, the copy engine and the view's handle table are where goroutines meet.
race: ## the same with the race detector (cgo is needed for that alone)
	@CGO_ENABLED=1 test/scripts/gotest race -race -timeout $(UNIT_TIMEOUT) $(UNIT)

# One P: a FUSE server that waits for its own reply deadlocks here and nowhere else. Natively nothing of ours runs.
single-cpu: ## the view's own tests with GOMAXPROCS=1
	@GOMAXPROCS=1 IMGWARD_TEST_TARGETS=view,view-nopassthrough test/scripts/gotest single-cpu -timeout $(UNIT_TIMEOUT) $(MOUNT)

e2e: deps build ## real libvirtd, real QEMU, real mounts (needs root), but for legit
	@IMGWARD_BIN=$(CURDIR)/bin test/scripts/gotest e2e -p 1 -skip '^TestLegit' -timeout $(E2E_TIMEOUT) $(E2E)

legit: deps build ## what must not be hindered, likewise
	@IMGWARD_BIN=$(CURDIR)/bin test/scripts/gotest legit -run '^TestLegit' -timeout $(E2E_TIMEOUT) ./test/e2e

test: deps build ## everything, then a check that nothing is left behind
	@test/scripts/all-tests

ci: lint test ## what .ci/run runs

demo: deps build ## the story in the terminal, on a real running domain in a scratch directory
	@$(GO) test -c -o bin/demo ./test/demo && IMGWARD_BIN=$(CURDIR)/bin bin/demo

bench: bench-view bench-survive bench-copy ## all benchmarks

bench-view: deps build ## the view against the native directory and its peers
	$(GO) run ./test/benchview

bench-survive: build ## the pause when the daemon is killed
	$(GO) run ./test/benchsurvive

bench-copy: deps build ## imgcp against cp, dd, qemu-img, nbdcopy, ddrescue
	$(GO) run ./test/benchcopy

conformance: deps ## POSIX and Linux semantics on a mounted view
	@test/scripts/gotest conformance -timeout $(UNIT_TIMEOUT) ./test/conformance/...

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	@test/scripts/fuzz

torture: deps build ## a writing guest while the daemon is killed, for TORTURE (default 10m)
	$(GO) test -count=1 -timeout 60m -v ./test/torture -torture.for=$(or $(TORTURE),10m)

# Debian wants a version that begins with a digit.
PKGVERSION = $(patsubst v%,%,$(shell git describe --tags --match 'v[0-9]*' 2>/dev/null || echo 0.0.0+git$(VERSION)))

packages: ## deb and rpm for amd64 and arm64 into dist/out
	@VERSION=$(VERSION) dist/packages/stage amd64 arm64
	@for arch in amd64 arm64; do for kind in deb rpm; do \
	  SOURCE_DATE_EPOCH=$(shell git log -1 --format=%ct) ARCH=$$arch VERSION=$(PKGVERSION) $(GO) run $(NFPM) package -f dist/packages/nfpm.yaml -p $$kind -t dist/out || exit 1; \
	done; done

man: ## show that the man pages are free of mistakes
	@for page in dist/man/*; do man --warnings -E UTF-8 -l -Tutf8 -Z $$page 2>&1 >/dev/null | sed "s|^|$$page: |" | grep . && exit 1; done; true

clean: ## remove what the build made
	rm -rf bin dist/out
