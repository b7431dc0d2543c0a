# keel and rdocker: build, try, test, measure.

SHELL := /bin/bash
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/$(TARGET)/release

# What a Debian 12 machine needs besides cargo: to build, to try, to test.
BUILD_PACKAGES := gcc make pkg-config
TRY_PACKAGES := $(BUILD_PACKAGES) busybox-static jq mmdebstrap
TEST_PACKAGES := $(TRY_PACKAGES) runc crun strace valgrind uidmap libseccomp-dev docker-registry skopeo \
	podman apache2-utils openssl procps qemu-system-x86 cpio e2fsprogs iproute2 nftables \
	containerd docker.io buildah containernetworking-plugins protobuf-compiler socat curl \
	git bzip2 xz-utils

.PHONY: build try test lint docs bench

# What `keel --version` shows; "unknown" in a build from an archive.
build: export KEEL_COMMIT ?= $(shell git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)

build:
	integration/setup/packages $(BUILD_PACKAGES)
	cargo build --release

# Real containers from real root file systems.
try:
	integration/setup/packages $(TRY_PACKAGES)
	cargo build --release -p keel -p rdocker
	integration/setup/demo $(RELEASE)/keel $(RELEASE)/rdocker

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Everything that CI runs, at the end what needs systemd and cgroup v2, in a virtual machine.
test:
	integration/setup/packages $(TEST_PACKAGES)
	$(MAKE) lint
	cargo build --release -p keel
	cargo build --workspace
	RUST_BACKTRACE=0 cargo test --workspace --no-fail-fast
	integration/guest/test --release

# Manual pages and shell completions, into target/docs.
docs:
	cargo run --example docs -- target/docs

# Ratios to the kernel's own cost and to the runtimes installed; needs root, cc and busybox-static.
# More peers or fewer scenarios: make bench BENCH='--peer youki=/path --only exec'
bench: build
	cargo run --release -p bench -- --json target/bench.json --svg target/bench.svg $(BENCH)
