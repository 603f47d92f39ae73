# Every target works as root (as in a container) and as an ordinary user with sudo.
.POSIX:
.NOTPARALLEL:
.PHONY: help run test lint fmt clippy doc deny-quick deny bench bench-edge-all bench-bounds bench-log bench-drain fuzz soak-log mutate-log deps deps-test oha clean

# Arguments for the daemon: make run ARGS='--listen 127.0.0.1:7000'
ARGS =
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS = 30
# Where cargo puts what it builds.
TARGET_DIR = $${CARGO_TARGET_DIR:-target}

help:
	@echo 'make run    install what is missing, build, start the daemon (ARGS=... go to "forebay serve")'
	@echo 'make test   install what is missing, run every test'
	@echo 'make lint   rustfmt, clippy, rustdoc, and licences and sources where cargo-deny is installed'
	@echo 'make bench  compare the HTTP edge with nginx'
	@echo 'make bench-edge-all  the same at 32, 128 and 512 connections, and at 128 without syncs'
	@echo 'make bench-bounds  measure the edge with large requests, one connection, an open loop, idle ones, two cores'
	@echo 'make bench-log  compare the log with the bare disk (fio), one run, a few minutes'
	@echo 'make bench-drain  compare the drain with a bare client that COPYs the same rows, a quarter of an hour'
	@echo 'make fuzz   run each fuzz target for FUZZ_SECONDS (30)'
	@echo 'make soak-log  walk the log through SEEDS (100000) simulated disks that lie'
	@echo 'make mutate-log  break the log on purpose and see that the simulated disk notices'
	@echo 'make oha    install oha if missing (minutes) and push with it'
	@echo 'make deny   install cargo-deny if missing (minutes), check licences, sources and advisories'
	@echo 'make clean  remove what was built; the data directory stays'

run: deps
	cargo build --release -p forebay --locked
	@exec "$(TARGET_DIR)/release/forebay" serve $(ARGS)

test: deps-test
	@scripts/test.sh

lint: fmt clippy doc deny-quick

fmt:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

clippy: deps
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: deps
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

# The part that needs no network and does not change with the day's news. Building cargo-deny takes minutes, so it is
# used where it is and not installed here.
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

bench-drain: deps
	@bench/drain.sh

# How many seeds of the simulated disk `make soak-log` walks through.
SEEDS = 100000

# Prints `N passed, N failed`; a failing seed is replayed with FOREBAY_SEED=N.
soak-log:
	FOREBAY_SEEDS=$(SEEDS) cargo test --release -p forebay-wal --test simulated --locked -- --nocapture

# Breaks the log in two dozen ways; the simulated disk must notice each.
mutate-log:
	@wal/tests/mutate.sh

# No sanitizer: they need a nightly compiler, and the targets are safe Rust that panics where it is wrong. Coverage
# guidance and the debug assertions that cargo-fuzz switches on stay.
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

# What only tests need: clients to push with, and schemathesis in an environment of its own below the build's directory.
deps-test:
	@scripts/install-deps.sh tests
	@scripts/install-schemathesis.sh "$(TARGET_DIR)/python"

# A load generator that is no package of the distribution's. Building it takes minutes, so `make test` does without; its test
# runs where it is installed.
oha:
	@command -v oha >/dev/null || cargo install oha --locked
	cargo test -p forebay --locked --test clients oha

clean:
	cargo clean
	cargo clean --manifest-path fuzz/Cargo.toml
