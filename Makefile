# keel and rdocker: build, test, try, measure. `make test` is what CI runs.

.PHONY: build docs test lint bench

# What `keel --version` shows; "unknown" in a build from an archive.
build: export KEEL_COMMIT ?= $(shell git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)

build:
	cargo build --release

# Manual pages and shell completions, into target/docs.
docs:
	cargo run --example docs -- target/docs

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: lint
	cargo test --workspace

# Ratios to the kernel's own cost and to the runtimes installed; needs root, cc and busybox-static.
# More peers or fewer scenarios: make bench BENCH='--peer youki=/path --only exec'
bench: build
	cargo run --release -p bench -- --json target/bench.json --svg target/bench.svg $(BENCH)
