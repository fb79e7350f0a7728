# Everything that is done with this repository. Needs a Rust toolchain (rustup takes the version
# from rust-toolchain.toml); `test` and `bench` also need apt, for the programs they run beside.

.PHONY: run build test live lint bench fuzz peers

CARGO ?= cargo
CONFIG ?= config/examples/quickstart.toml
FUZZ_SECONDS ?= 30

# Builds and runs the quickstart, without the features that take long to compile (Cargo.toml says
# which). The process says itself what it serves where, once it listens:
# the log has a line "listening" for each address, and one with the URL of the status page.
run:
	@echo "building metrifold: minutes the first time, seconds later; it says what it serves where once it listens"
	$(CARGO) run --locked --profile quickstart --no-default-features -- --config $(CONFIG) run --shutdown-limit 5s

# The binary that is shipped: target/release/metrifold
build:
	$(CARGO) build --locked --release

# All targets are compiled first, then the benchmarks run once without measuring, the examples of
# the documentation, the unit and integration tests, and last those beside a real issuer of tokens.
# `cargo test --test fast` needs neither the peers nor minutes.
test: peers
	$(CARGO) test --locked --workspace --all-targets --no-run
	$(CARGO) test --locked --bench codec --bench pipeline
	$(CARGO) test --locked --workspace --doc
	$(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast
	@if METRIFOLD_PEERS="$$(./tests/peers/build issuer)"; then export METRIFOLD_PEERS; \
		$(CARGO) test --locked --test live -- --ignored issuer_real::; \
	else echo "SKIPPED: the tests beside npm's oidc-provider, which could not be installed"; fi

# The tests beside Prometheus 3, Thanos, a real S3 server and others, which `test` shows as ignored.
# Needs Go, Maven, npm, Python and minutes to build them, once: tests/peers/build says where they are kept.
live:
	./.ci/peers chromium curl etcd-server
	METRIFOLD_PEERS="$$(./tests/peers/build)" && export METRIFOLD_PEERS && \
		$(CARGO) test --locked --test live -- --ignored --test-threads 1

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml --target-dir target/fuzz

# Figures are of this machine: docs/performance.md says how to read them.
bench: peers
	./.ci/peers nginx-light
	$(CARGO) build --locked --release --target-dir target/product
	METRIFOLD_BENCH_CAPTURED=$(CURDIR)/target/captured $(CARGO) bench --locked --bench capture
	METRIFOLD_BENCH_CAPTURED=$(CURDIR)/target/captured $(CARGO) bench --locked -p metrifold-expr --bench shapes
	$(CARGO) bench --locked --bench throughput --bench disk_queue --bench outage --bench queries --bench reload --bench rules --bench scrape --bench small --bench cf_scrape --bench tenants
	$(CARGO) bench --locked --bench codec --bench pipeline

# A short run of every fuzz target, where there is a nightly toolchain with cargo-fuzz.
fuzz:
	@if ! cargo +nightly fuzz --version >/dev/null 2>&1; then \
		echo "skipped: needs 'rustup toolchain install nightly' and 'cargo install cargo-fuzz'"; \
	else \
		./fuzz/run $(FUZZ_SECONDS); \
	fi

# Debian's Prometheus, node exporter, VictoriaMetrics and Caddy: tests and benchmarks start their own
# copies. The services that the packages bring are not used and are kept from starting.
peers:
	@./.ci/peers prometheus prometheus-node-exporter victoria-metrics caddy
