#!/usr/bin/env bash
# A channel to PostgreSQL, which many tasks share: beside one task that waits for each answer, beside pgbench in pipelines, and
# beside a connection of its own; and lists of dead letters while others are put back. All sides in turn, on a PostgreSQL of its
# own. Prints Markdown tables on standard output, progress on standard error.
#
#   bench/channel.sh                                 all scenarios: three minutes
#   ONLY=throughput ROUNDS=9 bench/channel.sh
#
# ONLY       scenarios, by name, with commas between: throughput latency letters (all)
# ROUNDS     turns of each side (15)
# SECONDS_A_TURN   how long a turn takes (1)
#
# It is bounded in time, and talks to a unix socket and loopback only.
set -euo pipefail
cd "$(dirname "$0")/.."

exec cargo bench --locked -q -p forebay --bench channel -- rounds="${ROUNDS:-15}" seconds="${SECONDS_A_TURN:-1}" ${ONLY:+only="$ONLY"}
