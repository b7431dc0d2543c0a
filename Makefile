# keel and rdocker: build, test, try, measure. `make test` is what CI runs.

.PHONY: build test lint

build:
	cargo build --release

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: lint
	cargo test --workspace
