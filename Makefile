# throng: what one does with a clone. Every target first says what the machine lacks.

.DEFAULT_GOAL := help
# What the end-to-end tests run: real clients, a real browser, real servers in front.
NEEDS := rust cc node npm chromium nginx haproxy openssl caddy supervisor tornado sdks schemathesis redis prometheus ip
.PHONY: help run test test-rust test-js doctor lint clean

help: ## Shows this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

# The development profile: it builds in a fraction of the time of a release, and a page to play with
# does not need more. `cargo build --release` makes the binary for everything else.
run: ## Builds the server and runs it in development mode, with the playground at /
	@scripts/need rust cc
	@cargo run --locked --quiet -p throng -- serve --dev $(ARGS)

test: ## Installs what the tests need, then runs every test
	@scripts/need --install $(NEEDS) sessions keepers
	@scripts/test rust js

test-rust: ## Only the tests in Rust
	@scripts/need --install rust cc ip supervisor sessions keepers
	@scripts/test rust

test-js: ## Only the end-to-end tests: the real binary, the SDK, a browser, proxies, supervisord
	@scripts/need --install $(NEEDS)
	@scripts/test js

doctor: ## The doctor alone, as one static file for any Linux of this processor
	@scripts/need rust cc
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release -p throng \
	  --bin throng-doctor --no-default-features --features alone --target $$(rustc --print host-tuple)
	@echo "target/$$(rustc --print host-tuple)/release/throng-doctor"

lint: ## Formatting, clippy with warnings as errors, and licences if cargo-deny is there
	@scripts/need rust cc
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features throng/alone -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; \
	else echo "licences not checked: cargo install cargo-deny"; fi

clean: ## Removes what was built and installed here
	rm -rf target tests/js/node_modules
