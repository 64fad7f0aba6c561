# The commands of the project. `make` alone lists them.
#
# Every build is the same build: the `release` profile over the whole workspace, so that RocksDB's
# C++ and the analytic crates are compiled once and serve running, testing and the release binaries.
# CARGO_TARGET_DIR, if set, is honoured.

CARGO ?= cargo
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/release
# Packages the build needs: a C and C++ compiler and libclang for RocksDB. HAProxy, Mosquitto and
# its clients, Python's venv and npm are for tests against other people's programs.
BUILD_PACKAGES := build-essential pkg-config cmake clang libclang-dev
TEST_PACKAGES := haproxy mosquitto mosquitto-clients python3-venv python3-pip $(if $(shell command -v npm),,nodejs npm) valgrind
DEMO_ARGS ?=
BENCH_ARGS ?=
PEERS ?= verge,null,mosquitto,rumqttd

.DEFAULT_GOAL := help
.PHONY: help deps test-deps build run test conformance soak fuzz lint fmt doc quick clean-data

help: ## List the commands.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

deps: ## Install what the build needs (Debian packages; needs root or sudo).
	@deploy/install-packages.sh $(BUILD_PACKAGES)

test-deps: deps ## Install what the tests need beyond the build.
	@deploy/install-packages.sh $(TEST_PACKAGES)

build: deps ## Build the release binaries, verge and verge-cloud.
	@if [ ! -e $(BIN)/verge ]; then echo "First build: about 25 minutes on 2 idle cores, most of it RocksDB's C++ and the analytic crates; later builds take seconds."; fi
	$(CARGO) build --release --workspace --bins
	@echo "built: $(BIN)/verge $(BIN)/verge-cloud"

run: build ## The main job: a mesh on loopback, vehicles driving through it, a report.
	$(BIN)/verge demo $(DEMO_ARGS)

test: build test-deps ## Every test.
	$(CARGO) test --release --workspace
	$(CARGO) test --manifest-path tests/differential/Cargo.toml --target-dir $(abspath $(TARGET))/differential

conformance: build test-deps ## What the standard says, whole, over each transport; then other people's judges (docs/conformance.md).
	VERGE_CONFORMANCE=whole $(CARGO) test --release --workspace --test conformance -- --nocapture
	python3 tests/conformance/judges/judge.py $(abspath $(BIN)/verge) $(abspath $(TARGET)/judges)

quick: ## The cores' tests, in seconds, without RocksDB.
	$(CARGO) test -p verge-model -p verge-mqtt-proto -p verge-storage -p verge-mesh-proto -p verge-broker-core

soak: build test-deps ## Long tests: hundreds of kills, then simulation without end, until interrupted.
	VERGE_CRASH_KILLS=$${VERGE_CRASH_KILLS:-250} $(CARGO) test --release --workspace --test processes crash:: -- --nocapture
	VERGE_SIM_SEEDS=$${VERGE_SIM_SEEDS:-100000} $(CARGO) test --release -p verge-tests --test simulation -- --nocapture

.PHONY: bench bench-micro bench-counts bench-scale
bench: build ## The same work against Verge, a null broker, Mosquitto and rumqttd; writes docs/benchmarks.md. BENCH_ARGS=--quick for some minutes, PEERS=… for others.
	$(BIN)/verge bench --peers $(PEERS) --page docs/benchmarks.md --svg docs/benchmarks.svg --json $(TARGET)/benchmarks.json $(BENCH_ARGS)

bench-micro: ## Criterion's measurements of codec, session, router and shard; BENCH=name for some of them.
	$(CARGO) bench -p verge-mqtt-proto -p verge-broker-core --benches -- $(BENCH)

bench-counts: test-deps ## Write how many instructions the hot path takes now; make test fails if it takes 5 % more.
	VERGE_COUNTS_UPDATE=1 $(CARGO) test --release --workspace --test counts -- --nocapture

bench-scale: build ## A million sessions and five million subscriptions in one node, without sockets; and the start of a node that a million parked sessions wait in.
	$(CARGO) run --release -p verge-broker-core --example scale
	$(CARGO) run --release --workspace --example parked -- $(BIN)/verge

FUZZ_SECONDS ?= 60
FUZZ_DIR := $(abspath $(TARGET))/fuzz

# Coverage-guided fuzzing needs flags that a stable compiler only takes when told so.
fuzz: deps ## Fuzz every entry point for FUZZ_SECONDS each, from the committed corpus.
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	cd tests/fuzz && RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(FUZZ_DIR) $(CARGO) fuzz build --fuzz-dir .
	@set -e; cd tests/fuzz; for target in targets/*.rs; do \
		name=$$(basename $$target .rs); echo "== $$name"; mkdir -p $(FUZZ_DIR)/corpus/$$name; \
		RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(FUZZ_DIR) $(CARGO) fuzz run --fuzz-dir . $$name \
			$(FUZZ_DIR)/corpus/$$name corpus/$$name -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096; \
	done

fmt: ## Format the code.
	$(CARGO) fmt --all

lint: ## Format check and lints, as CI runs them.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

doc: ## Build the documentation of the crates.
	$(CARGO) doc --release --workspace --no-deps

clean-data: ## Remove the default data directory.
	rm -rf verge-data
