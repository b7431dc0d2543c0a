# keel and rdocker: build, test, try, measure. `make test` is what CI runs.

.PHONY: build test lint bench

build:
	cargo build --release

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: lint
	cargo test --workspace

# Ratios to the kernel's own cost and to the runtimes installed; needs root, cc and busybox-static.
# More peers or fewer scenarios: make bench BENCH='--peer youki=/path --only exec'
bench: build
	cargo run --release -p bench -- --json target/bench.json --svg target/bench.svg $(BENCH)
