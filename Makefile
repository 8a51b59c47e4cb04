# make            bin/layerbuild, static
# make demo       builds two of the examples and runs one, on any Debian machine
# make install    the program, man pages and completions below DESTDIR/PREFIX (/usr/local). It installs bin/layerbuild as it is
# make dist       the files of a release in dist/: archives, packages, SBOMs and checksums. docs/PACKAGING.md has the details
# make images     make dist, and container images. HELPERS=ecr,gcr,acr has the credential helpers that the image gets
# make release    make images, if the tree is that of a tag vX.Y.Z
# make test       all checks: lint, unit and integration tests as an unprivileged user and as root, a short fuzz
# make release-test  tests that are too long for make test or need more packages: a release made twice, its image, gitlab-ci-local, servers of caches
# make fuzz       each fuzz target for FUZZTIME (1m)
# make faults     hours of randomized tests, hostile input and fuzzing. LAYERBUILD_FAULTS_BUDGET=2h limits a run; the next one continues
# make race       unit tests under the race detector (needs a C compiler)
# make bench      measures layerbuild, buildah, dockerd and BuildKit, and writes docs/BENCHMARKS.md. BENCH has flags; see bin/bench -help
# make bench-check  compares counts of instructions with those of the last release. CHECK has flags; see bin/bench check -help
# make pictures   writes docs/pictures from real runs and from docs/BENCHMARKS.md, as root or through sudo
# make lint       gofmt, vet, and the rules for imports, comments, names and documentation (internal/arch)
# make clean
#
# demo, test, release-test, faults, bench and bench-check install missing Debian packages that they need, as root or through sudo.

.PHONY: build install dist images release demo test release-test fuzz faults race bench bench-check pictures lint rootfs clean
.DELETE_ON_ERROR:

# scripts/go-command finds or downloads a Go toolchain. make runs it when a rule first uses GO.
GO = $(eval GO := $(or $(shell scripts/go-command),$(error no Go toolchain; see above)))$(GO)
ROOTFS = examples/debian-base/rootfs.tar.zst
TEST_PACKAGES = attr binutils btrfs-progs busybox-static bzip2 ca-certificates curl docker-cli:if-known docker-registry docker.io \
	e2fsprogs erofs-utils fish fuse-overlayfs git groff-base libcap2-bin mandoc mmdebstrap munge nginx openssh-client podman procps \
	python3 skopeo slurm-client slurmctld slurmd squashfs-tools uidmap umoci util-linux util-linux-extra xz-utils zsh zstd
BENCH_PACKAGES = buildah busybox-static ca-certificates containerd docker-cli:if-known docker-registry docker.io e2fsprogs \
	git gzip mmdebstrap runc tar uidmap util-linux zstd

BUILD_FLAGS = -trimpath -tags nethttpomithttp2 -ldflags=-s
DIST = umask 022; $(GO) run -C scripts/dist -buildvcs=false . -go $(GO) -build-flags "$(BUILD_FLAGS)" $(DISTFLAGS)
HELPERS ?= ecr,gcr,acr

build:
	CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o bin/layerbuild ./cmd/layerbuild

# The program is not built again, since 'sudo make install' would build it as another user.
bin/layerbuild:
	$(MAKE) build

install: bin/layerbuild
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/install

dist:
	$(DIST)

images:
	scripts/packages mmdebstrap uidmap
	$(DIST) -images image,inplace -helpers "$(HELPERS)"

release:
	scripts/packages mmdebstrap uidmap
	$(DIST) -release -images image,inplace -helpers "$(HELPERS)"

rootfs: $(ROOTFS)

$(ROOTFS): examples/debian-base/rootfs.sh
	scripts/packages mmdebstrap zstd uidmap
	examples/debian-base/rootfs.sh

demo: build rootfs
	scripts/packages curl uidmap
	scripts/demo

test:
	scripts/packages $(TEST_PACKAGES)
	$(MAKE) build rootfs
	GO=$(GO) FUZZTIME=$(or $(FUZZTIME),3s) scripts/test

# npm is not installed if there is one, since the Node.js of another source conflicts with Debian's package.
release-test:
	scripts/packages $(TEST_PACKAGES) rsync $(if $(shell command -v npm),,npm)
	$(MAKE) build
	GO=$(GO) scripts/cache-servers bin/servers
	$(if $(filter-out 0,$(shell id -u)),sudo --preserve-env )env GO=$(GO) \
		PATH="$(dir $(GO)):$(CURDIR)/bin/servers:$$PATH:/usr/sbin:/sbin" \
		LAYERBUILD=$(CURDIR)/bin/layerbuild LAYERBUILD_NPM=1 LAYERBUILD_PODSECURITY=1 LAYERBUILD_DIST=$(or $(LAYERBUILD_DIST),all) \
		$(GO) test -count=1 -timeout 2h -run 'TestGitLabLocal|TestPodSecurity|TestTwice|TestImage|InStores|TestStores|TestLease' \
		./test/caches ./test/ci ./test/dist

fuzz:
	GO=$(GO) scripts/fuzz $(or $(FUZZTIME),1m)

faults:
	scripts/packages $(TEST_PACKAGES)
	$(MAKE) build rootfs
	$(if $(filter-out 0,$(shell id -u)),sudo --preserve-env )env GO=$(GO) scripts/faults

race:
	CGO_ENABLED=1 $(GO) test -race $$($(GO) list ./... | grep -v /test/)

bench:
	scripts/packages $(BENCH_PACKAGES)
	$(MAKE) build rootfs
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./bench
	$(if $(filter-out 0,$(shell id -u)),sudo )env BENCH_DIR="$${BENCH_DIR:-/var/tmp}" \
		BUILDKITD="$$BUILDKITD" BUILDCTL="$$BUILDCTL" bin/bench -o docs/BENCHMARKS.md $(BENCH)

pictures:
	scripts/packages busybox-static
	$(MAKE) build
	$(if $(filter-out 0,$(shell id -u)),sudo )env LAYERBUILD=$(CURDIR)/bin/layerbuild $(GO) test -count=1 ./test/pictures \
		-pictures $(CURDIR)/docs/pictures

bench-check:
	scripts/packages valgrind util-linux
	mkdir -p bin/check
	CGO_ENABLED=0 $(GO) build -trimpath -tags nethttpomithttp2 -o bin/check/layerbuild ./cmd/layerbuild
	CGO_ENABLED=0 $(GO) test -c -trimpath -o bin/check/ ./diff ./internal/gunzip ./internal/source ./internal/unpack ./parser
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./bench
	$(if $(filter-out 0,$(shell id -u)),sudo )env BENCH_DIR="$${BENCH_DIR:-/var/tmp}" \
		VALGRIND="$$VALGRIND" VALGRIND_LIB="$$VALGRIND_LIB" bin/bench check $(CHECK)

lint:
	GO=$(GO) scripts/lint

clean:
	rm -rf bin dist $(ROOTFS)
