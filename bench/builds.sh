#!/usr/bin/env bash
# Compares builds of the daemon: does a change make pushes faster or slower? Each round runs every build in turn, with an
# empty log and without PostgreSQL. The daemon runs on one core, wrk on another.
#
# Usage: bench/builds.sh BEFORE AFTER...
#
# BEFORE and AFTER are two or more executables of the daemon. A relative path is relative to the repository's root. To
# compare two commits:
#
#   git switch --detach OLD; cargo build --release -p forebay --locked; cp target/release/forebay /tmp/before
#   git switch -; cargo build --release -p forebay --locked; bench/builds.sh /tmp/before target/release/forebay
#
# The result is a Markdown table per number of connections on standard output, with the ratios to the first build below
# it. A ratio is computed for each round, and the median, least and greatest are printed: a slow disk or a busy machine
# slows both builds of a round. Progress is on standard error. The defaults take about two minutes for two builds.
#
# Environment variables, with their defaults in parentheses:
#
# CONNECTIONS        open connections, several numbers separated by commas (32,128)
# MODE               the log's --sync: direct, fdatasync or none (direct)
# ROUNDS             rounds of each build (7)
# SECONDS_PER_ROUND  length of a round (2)
# WARM_UP_SECONDS    load before each round that is not measured (1)
# SERVER_CORE        core of the daemon (the core that handles the disk's interrupts)
# LOAD_CORE          core of wrk (another one)
# SCRATCH            directory for the logs, on a disk (target/builds); the script removes what it writes
#
# The script needs wrk and curl and installs them if they are missing and apt-get is there. It uses loopback only. All
# programs are bounded in time, and stopped by their process ids.
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

# Median (least–greatest) of the ratios of a column of build $1 to that of the first build, round by round.
ratio_to_first() {
  paste -d' ' <(cut -d' ' -f"$2" "$scratch/1.rounds") <(cut -d' ' -f"$2" "$scratch/$1.rounds") |
    awk '{ print $2 / $1 }' | spread_of 1 2
}

# Measures the builds and prints the table. CONNECTIONS is a single number here.
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
    printf '%s relative to %s: requests/s %s, CPU per request %s, p50 %s\n' "${!number}" "$1" "$(ratio_to_first "$number" 1)" \
      "$(ratio_to_first "$number" 2)" "$(ratio_to_first "$number" 3)"
  done
  rm "$scratch"/*.rounds
}

main() {
  local build separator=''
  install_missing wrk:wrk curl:curl
  check_rounds
  [ $# -ge 2 ] || die "usage: bench/builds.sh BEFORE AFTER..."
  for build in "$@"; do [ -x "$build" ] || die "$build is not an executable file"; done
  make_scratch
  pick_cores
  for CONNECTIONS in ${CONNECTIONS//,/ }; do
    printf '%s' "$separator"
    compare "$@"
    separator=$'\n'
  done
}

main "$@"
