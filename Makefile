# keel and rdocker: build, try, test, measure.

SHELL := /bin/bash
CARGO_HOME ?= $(HOME)/.cargo
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/$(TARGET)/release
DOCS := target/docs
# keel is built for musl where Rust has it (rustup target add x86_64-unknown-linux-musl), else linked with
# Debian's: glibc's start-up takes longer than all that `keel state` does, see docs/performance.md.
MUSL := $(TARGET:gnu=musl)
KEEL_TARGET ?= $(if $(wildcard $(shell rustc --print target-libdir --target $(MUSL))/*),$(MUSL),$(TARGET))
KEEL := target/$(KEEL_TARGET)/release/keel

# What a Debian 12 machine needs besides cargo: to build, to try, to test.
BUILD_PACKAGES := gcc make musl-dev pkg-config
TRY_PACKAGES := $(BUILD_PACKAGES) busybox-static jq mmdebstrap
TEST_PACKAGES := $(TRY_PACKAGES) runc crun strace valgrind uidmap libseccomp-dev docker-registry skopeo \
	podman apache2-utils openssl procps qemu-system-x86 cpio e2fsprogs iproute2 nftables \
	containerd docker.io buildah containernetworking-plugins protobuf-compiler socat curl \
	git bzip2 xz-utils passt nodejs postgresql

CARGO_DEB := command -v cargo-deb >/dev/null || cargo install --locked cargo-deb

# Where `make install` puts things: below DESTDIR, for those who make packages of it.
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: build release install deb reproducible try test lint docs bench order fuzz sbom audit

# What `keel --version` shows; "unknown" in a build from an archive.
build release: export KEEL_COMMIT ?= $(shell git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)

# keel alone: features that others want of its dependencies change the names in src/functions.order.
build:
	integration/setup/packages $(BUILD_PACKAGES)
	cargo build --release -p keel --target $(KEEL_TARGET)
	cargo build --release --workspace --exclude keel

# As people get it: without the paths of the machine that built it.
release: CRATES ?= keel rdocker
release: REMAP = "--remap-path-prefix=$(CURDIR)=/keel", "--remap-path-prefix=$(CARGO_HOME)=/cargo"
release:
	for crate in $(CRATES); do \
		target=$(TARGET); [ $$crate != keel ] || target=$(KEEL_TARGET); \
		cargo build --release -p $$crate --target $$target \
			--config "target.$$target.rustflags = [$(subst ",\",$(REMAP))]" || exit; done

# make install PREFIX=/usr DESTDIR=/tmp/package
install: release docs
	install -d $(DESTDIR)$(PREFIX)/bin $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man1 man/man8 \
		bash-completion/completions zsh/site-functions fish/vendor_completions.d doc/keel)
	install -m 755 $(KEEL) $(RELEASE)/rdocker $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(DOCS)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 $(DOCS)/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8
	for program in keel rdocker; do install -m 644 $(DOCS)/completions/$$program.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$program || exit; done
	install -m 644 $(DOCS)/completions/_* $(DESTDIR)$(PREFIX)/share/zsh/site-functions
	install -m 644 $(DOCS)/completions/*.fish \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 644 README.md CHANGELOG.md LICENSE $(DESTDIR)$(PREFIX)/share/doc/keel
	cp -r docs/integrations $(DESTDIR)$(PREFIX)/share/doc/keel

# A Debian package of the same: target/keel_VERSION_ARCHITECTURE.deb, by cargo-deb.
deb:
	$(CARGO_DEB)
	rm -rf target/deb
	$(MAKE) install PREFIX=/usr DESTDIR=target/deb
	cargo deb --no-build --no-strip -p keel --output target/

# Whether two builds in two places give the same bytes; takes some minutes.
reproducible:
	integration/setup/reproducible

# Real containers from real root file systems.
try:
	integration/setup/packages $(TRY_PACKAGES)
	cargo build --release -p keel --target $(KEEL_TARGET)
	cargo build --release -p rdocker
	integration/setup/demo $(KEEL) $(RELEASE)/rdocker

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Everything that CI runs, at the end what needs systemd and cgroup v2, in a virtual machine.
test:
	integration/setup/packages $(TEST_PACKAGES)
	$(CARGO_DEB)
	$(MAKE) lint
	cargo build --release -p keel
	integration/setup/linked target/$(TARGET)
	cargo build --workspace
	RUST_BACKTRACE=0 cargo test --workspace --no-fail-fast
	[ $(KEEL_TARGET) = $(TARGET) ] || { cargo build --release -p keel --target $(KEEL_TARGET) && \
		KEEL_UNDER_TEST=$(CURDIR)/$(KEEL) cargo test -p integration --no-fail-fast; }
	integration/guest/test --release

# Manual pages and shell completions, into target/docs.
docs:
	cargo run --example docs -- $(DOCS)

# Ratios to the kernel's own cost and to the runtimes installed; needs root, cc and busybox-static.
# More peers or fewer scenarios: make bench BENCH='--peer youki=/path --only exec'
bench: build
	cargo run --release -p bench -- --keel $(KEEL) --json target/bench.json --svg target/bench.svg \
		$(BENCH)

# The functions that keel executes on its usual ways, which the linker puts side by side; by stepping
# through them, which takes a minute. For another compiler, or after much has changed. The names of
# another target are others:
#	make order ORDER_TARGET=x86_64-unknown-linux-musl KEEL_ORDER=target/musl.order
#	make release KEEL_ORDER=target/musl.order
ORDER_TARGET ?= $(TARGET)
KEEL_ORDER ?= src/functions.order
order:
	KEEL_SYMBOLS=1 cargo build --release -p keel --target $(ORDER_TARGET)
	cargo run --release -p bench -- --keel target/$(ORDER_TARGET)/release/keel --order $(KEEL_ORDER)
	cargo build --release -p keel --target $(ORDER_TARGET)
	KEEL_ORDER=$(KEEL_ORDER) integration/setup/linked target/$(ORDER_TARGET)

# Hostile input for what keel reads, FUZZ_SECONDS for each target: nightly Rust, and
# `cargo install cargo-fuzz`. Findings are in fuzz/artifacts. Without the address sanitizer, as
# none of what is fuzzed is unsafe code: several times as many executions.
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?= $(notdir $(wildcard fuzz/seeds/*))
fuzz:
	cargo +nightly fuzz build --sanitizer none
	for target in $(FUZZ_TARGETS); do mkdir -p fuzz/corpus/$$target; \
		cargo +nightly fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -dict=fuzz/json.dict -print_final_stats=1 || exit; done

# What the two binaries are made of, as CycloneDX.
sbom:
	mkdir -p target
	for name in keel rdocker; do integration/setup/sbom $$name > target/$$name.cdx.json || exit; done

# Known vulnerabilities, licences, origins: `cargo install cargo-deny`, and network.
audit:
	cargo deny --workspace check
