#!/usr/bin/env bash
# Whether a change costs or gains anything: builds of the daemon in turn, each on one pinned core with PostgreSQL away and a
# new log, wrk on another core. Prints a Markdown table for each number of connections on standard output, progress on
# standard error.
#
#   cp target/release/forebay /tmp/before; (change something, build); bench/builds.sh /tmp/before target/release/forebay
#   CONNECTIONS=8,32 ROUNDS=9 bench/builds.sh BEFORE AFTER...
#
# CONNECTIONS        open connections (32,128); several numbers with commas between have a table each
# MODE               the log's --sync: direct, fdatasync or none (direct)
# ROUNDS, SECONDS_PER_ROUND   rounds of each build, and the length of one (7 and 2); WARM_UP_SECONDS before each (1)
# SERVER_CORE, LOAD_CORE      the two cores (the one at which the disk's interrupts arrive, and another)
# SCRATCH            where the logs are kept: on a real disk, in a directory that is made and removed (target/builds)
#
# Ratios are to the first build, medians of the rounds' own: what makes a round slow is in both. Everything is on loopback,
# bounded in time, and stopped by its process id.
set -euo pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."

CONNECTIONS=${CONNECTIONS:-32,128}
MODE=${MODE:-direct}
ROUNDS=${ROUNDS:-7}
SECONDS_PER_ROUND=${SECONDS_PER_ROUND:-2}
WARM_UP_SECONDS=${WARM_UP_SECONDS:-1}
SCRATCH=${SCRATCH:-target/builds}

# shellcheck source=bench/common.sh
source bench/common.sh
# shellcheck source=bench/cores.sh
source bench/cores.sh
# shellcheck source=bench/server.sh
source bench/server.sh
# shellcheck source=bench/rounds.sh
source bench/rounds.sh

trap clean_up_forebay EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A build's column beside the first build's, round by round.
beside_first() {
  paste -d' ' <(cut -d' ' -f"$2" "$scratch/1.rounds") <(cut -d' ' -f"$2" "$scratch/$1.rounds") |
    awk '{ print $2 / $1 }' | spread_of 1 2
}

# The table for CONNECTIONS, which is one number here.
compare() {
  local round number build
  for ((round = 1; round <= ROUNDS; round++)); do
    number=0
    for build in "$@"; do
      number=$((number + 1))
      FOREBAY=$build start_forebay
      warm_up_forebay
      measure "$number" "$forebay_pid" "$forebay_port"
      stop_forebay
    done
  done
  printf '%s connections, --sync %s, the daemon on core %s, the load on core %s, %s rounds of %s s, %s\n\n' "$CONNECTIONS" "$MODE" \
    "$SERVER_CORE" "$LOAD_CORE" "$ROUNDS" "$SECONDS_PER_ROUND" "$(date -u +%Y-%m-%d)"
  head_row build
  for ((number = 1; number <= $#; number++)); do row "$number" "${!number}"; done
  printf '\n'
  for ((number = 2; number <= $#; number++)); do
    printf '%s beside the first: requests/s %s, CPU a request %s, p50 %s\n' "${!number}" "$(beside_first "$number" 1)" \
      "$(beside_first "$number" 2)" "$(beside_first "$number" 3)"
  done
  rm "$scratch"/*.rounds
}

main() {
  local build separator=''
  install_missing wrk:wrk curl:curl
  check_rounds
  [ $# -ge 2 ] || die "name two builds of the daemon, or more"
  for build in "$@"; do [ -x "$build" ] || die "$build is not there"; done
  make_scratch
  pick_cores
  for CONNECTIONS in ${CONNECTIONS//,/ }; do
    printf '%s' "$separator"
    compare "$@"
    separator=$'\n'
  done
}

main "$@"
