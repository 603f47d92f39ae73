#!/usr/bin/env bash
# The drain beside a bare client that COPYs the same rows in the same batches into an identical table; and plain pushes. Both
# sides in turn, on a PostgreSQL of its own. Prints Markdown tables on standard output, progress on standard error.
#
#   bench/drain.sh                          all scenarios, 3 rounds of 1,000,000 messages each: a quarter of an hour
#   ONLY=small,wide ROUNDS=5 bench/drain.sh
#
# ONLY       scenarios, by name, with commas between (all)
# ROUNDS     rounds of each (3)
# MESSAGES   messages of a backlog (1000000)
# TMPDIR     where logs and clusters lie (the former on the disk that holds the build, the latter in /tmp); in memory (a directory
#            in /dev/shm that everybody may write to) plain pushes show what they take besides the disk
#
# Scenarios: small wide kib few-duplicates half-duplicates no-ids plain. With `plain` goes where the CPU went, of which thread or
# process, and how long PostgreSQL's syncs took.
#
# It needs 8 GiB on the disk that holds the build, is bounded in time, and talks to loopback and a unix socket only.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --locked -p forebay -p forebay-bench >&2
load=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/forebay-bench
exec cargo bench --locked -q -p forebay --bench drain -- load="$load" rounds="${ROUNDS:-3}" messages="${MESSAGES:-1000000}" \
  ${ONLY:+only="$ONLY"}
