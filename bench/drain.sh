#!/usr/bin/env bash
# Compares the drain with a bare client that COPYs the same rows in the same batches into an identical table. Also measures
# plain pushes. The two sides run in turn on a private PostgreSQL. Prints Markdown tables on standard output and progress on
# standard error.
#
#   bench/drain.sh                          all scenarios, 3 rounds of 1,000,000 messages each: a quarter of an hour
#   ONLY=small,wide ROUNDS=5 bench/drain.sh
#
# Environment variables, with their defaults in parentheses:
#
# ONLY       scenarios, separated by commas (all)
# ROUNDS     rounds of each scenario (3)
# MESSAGES   messages of a backlog (1000000)
# TMPDIR     directory of logs and clusters (logs: the disk with the build; clusters: /tmp). A directory in memory, such as one in
#            /dev/shm that all accounts may write to, shows what plain pushes cost without the disk
#
# Scenarios: small wide kib few-duplicates half-duplicates no-ids refused plain. The scenario `plain` also reports the CPU time of each
# thread and process, and the duration of PostgreSQL's syncs.
#
# The benchmark needs 8 GiB on the disk with the build. It uses loopback and a unix socket only, and is bounded in time.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked -p forebay -p forebay-bench >&2
load=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/forebay-bench
exec cargo bench --locked -q -p forebay --bench drain -- load="$load" rounds="${ROUNDS:-3}" messages="${MESSAGES:-1000000}" \
  ${ONLY:+only="$ONLY"}
