# Every target works as root, as in a container, and as an ordinary user with sudo.
.POSIX:
.NOTPARALLEL:
.PHONY: help run test test-copies lint fmt lint-source clippy fuzz-check doc deny-quick deny bench bench-edge-all bench-bounds bench-log bench-drain bench-channel bench-instructions bench-waiting bench-slow-clients bench-queue fuzz soak-log soak-queue mutate-log deps deps-test oha clean

# Arguments for the daemon: make run ARGS='--listen 127.0.0.1:7000'
ARGS =
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS = 30
# Cargo's build directory.
TARGET_DIR = $${CARGO_TARGET_DIR:-target}

help:
	@echo 'make run             install missing packages, build and start the daemon (ARGS=... is passed to "forebay serve")'
	@echo 'make test            install missing packages and run all tests'
	@echo 'make test-copies     run two copies of a data directory at the same time in 50 trials, some minutes'
	@echo 'make lint            rustfmt, clippy, rustdoc, scripts/lint-source.py; licences and sources if cargo-deny is installed'
	@echo 'make bench           compare the HTTP edge with nginx'
	@echo 'make bench-edge-all  the same with 32, 128 and 512 connections, and with 128 without syncs'
	@echo 'make bench-bounds    measure the edge with large requests, one connection, an open loop, idle connections, two cores'
	@echo 'make bench-log       compare the log with the bare disk (fio), a few minutes'
	@echo 'make bench-drain     compare the drain with a bare client that COPYs the same rows, a quarter of an hour'
	@echo 'make bench-channel  compare a channel to PostgreSQL with pgbench and a bare connection, a few minutes'
	@echo 'make bench-instructions  count the instructions of a push with callgrind, a few minutes'
	@echo 'make bench-waiting  measure 10,000 connections that wait for a commit: memory, and the time until a hang-up is noticed'
	@echo 'make bench-queue    consumers on a backlog beside the bare read of the same rows, two minutes'
	@echo 'make bench-slow-clients  what others feel of clients that are as slow as they may be: latency and memory, two minutes'
	@echo 'make fuzz            run each fuzz target for FUZZ_SECONDS (30)'
	@echo 'make soak-log        test the log on SEEDS (100000) simulated disks that fail'
	@echo 'make soak-queue      test the dispatcher of messages with SEEDS (100000) lives of a simulated PostgreSQL'
	@echo 'make mutate-log      check that the tests on the simulated disk detect faults in the log'
	@echo 'make oha             install oha if missing (minutes) and run its test'
	@echo 'make deny            install cargo-deny if missing (minutes); check licences, sources and advisories'
	@echo 'make clean           remove everything that was built; the data directory stays'

run: deps
	cargo build --release -p forebay --locked
	@exec "$(TARGET_DIR)/release/forebay" serve $(ARGS)

test: deps-test
	@scripts/test.sh

# Two copies of a data directory that run at the same time: 50 trials; make test has a few.
test-copies: deps-test
	FOREBAY_COPY_TRIALS=50 cargo test -p forebay --locked --test copies live:: -- --nocapture

lint: fmt lint-source clippy fuzz-check doc deny-quick

fmt:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

# Rules that neither rustc nor clippy checks. The self-test first makes sure that the script still detects each fault.
lint-source: deps
	@scripts/lint-source.py --self-test
	@scripts/lint-source.py

clippy: deps
	cargo clippy --workspace --all-targets --locked -- -D warnings

# The fuzz targets are a workspace of their own, which no other target compiles.
fuzz-check:
	@scripts/install-deps.sh c++
	cargo check --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --locked

doc: deps
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# The checks that need no network and do not depend on the latest advisories. cargo-deny is not installed here, because
# building it takes minutes.
deny-quick:
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check --hide-inclusion-graph bans licenses sources; \
	else echo 'cargo-deny is not installed; "make deny" installs it'; fi

deny:
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check

bench: deps
	cargo build --release -p forebay --locked
	@FOREBAY="$(TARGET_DIR)/release/forebay" bench/edge.sh

bench-edge-all: deps
	cargo build --release -p forebay --locked
	@FOREBAY="$(TARGET_DIR)/release/forebay" CONNECTIONS=32,128,512 MODE=direct bench/edge.sh
	@echo
	@FOREBAY="$(TARGET_DIR)/release/forebay" CONNECTIONS=128 MODE=none bench/edge.sh

bench-bounds: deps
	cargo build --release -p forebay -p forebay-bench --locked
	@FOREBAY="$(TARGET_DIR)/release/forebay" BENCH="$(TARGET_DIR)/release/forebay-bench" bench/bounds.sh

bench-log: deps
	cargo build --release -p forebay --locked
	@FOREBAY="$(TARGET_DIR)/release/forebay" bench/log.sh

bench-instructions: deps
	cargo build --release -p forebay -p forebay-bench --locked
	@BENCH="$(TARGET_DIR)/release/forebay-bench" bench/instructions.sh "$(TARGET_DIR)/release/forebay"

bench-waiting: deps
	@bench/waiting.sh

bench-slow-clients: deps
	cargo build --release -p forebay --locked
	@FOREBAY="$(TARGET_DIR)/release/forebay" bench/slow-clients.sh

bench-queue: deps
	cargo build --release -p forebay --locked
	@FOREBAY="$(TARGET_DIR)/release/forebay" bench/queue.sh

bench-drain: deps
	@bench/drain.sh

bench-channel: deps
	@bench/channel.sh

# Number of seeds of the simulated disk for `make soak-log`.
SEEDS = 100000

# Prints `N passed, N failed`. FOREBAY_SEED=N repeats the run with a failing seed.
soak-log:
	FOREBAY_SEEDS=$(SEEDS) cargo test --release -p forebay-wal --test simulated --locked -- --nocapture

# Introduces two dozen faults into the log, one at a time. The tests on the simulated disk must detect each.
# The dispatcher of messages against a simulated PostgreSQL.
soak-queue:
	FOREBAY_SEEDS=$(SEEDS) cargo test --release -p forebay --locked --test queue_simulated every_message -- --nocapture

mutate-log:
	@wal/tests/mutate.sh

# Without sanitizers, which need a nightly compiler: the targets are safe Rust, where a fault shows as a panic. Coverage
# guidance and debug assertions are on.
fuzz:
	@scripts/install-deps.sh c++
	@command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
	@set -e; for target in fuzz/fuzz_targets/*.rs; do \
		name=$$(basename "$$target" .rs); \
		echo "== $$name, $(FUZZ_SECONDS) s"; \
		cargo fuzz run --sanitizer none "$$name" -- -max_total_time=$(FUZZ_SECONDS); \
	done

deps:
	@scripts/install-deps.sh

# Dependencies of tests only: clients to push and to pop with, and schemathesis; those of Python in their own environments in the
# build directory.
deps-test:
	@scripts/install-deps.sh tests
	@scripts/install-schemathesis.sh "$(TARGET_DIR)/python"
	@scripts/install-queen-clients.sh "$(TARGET_DIR)"

# oha is a load generator that is not in the distribution. `make test` does not install it, because building it takes minutes;
# its test runs if it is installed.
oha:
	@command -v oha >/dev/null || cargo install oha --locked
	cargo test -p forebay --locked --test clients oha

clean:
	cargo clean
	cargo clean --manifest-path fuzz/Cargo.toml
