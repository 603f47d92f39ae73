#!/usr/bin/env bash
# Instructions that the core's thread spends on one push, counted by callgrind: repeatable where times are noisy. Prints a
# Markdown table on standard output, progress on standard error.
#
#   bench/instructions.sh target/release/forebay              one build
#   bench/instructions.sh /tmp/before target/release/forebay  builds side by side
#
# CONNECTIONS   open connections (1,32); several numbers with commas between have a row each
# REQUESTS      pushes that are counted, after as many that are not (2000)
# BENCH         the load generator (target/release/forebay-bench)
#
# The daemon runs with one core thread, `--sync none` and PostgreSQL away. `ring-wait.c` is preloaded, because valgrind would let
# no thread run while another one waits on its ring. Everything is on loopback, bounded in time, and
# stopped by its process id.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

CONNECTIONS=${CONNECTIONS:-1,32}
REQUESTS=${REQUESTS:-2000}
BENCH=${BENCH:-target/release/forebay-bench}

# shellcheck source=bench/common.sh
source bench/common.sh
# shellcheck source=bench/server.sh
source bench/server.sh

START_SECONDS=90 # callgrind starts a program some fifty times slower

scratch=$(mktemp -d)
clean_up() {
  # shellcheck disable=SC2046 # process ids
  kill -KILL $(jobs -p) 2>/dev/null || true
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Pushes REQUESTS messages over $1 connections to port $2.
push() {
  "$BENCH" push --url "http://127.0.0.1:$2" --connections "$1" --threads 1 --requests "$REQUESTS" >/dev/null
}

# Prints the instructions of the thread with the most of them, which is the core's by far.
most_instructions() {
  awk '/^(summary|totals):/ { if ($2 > most) most = $2 } END { printf "%d", most }' "$scratch"/out*
}

# Prints the thousands of instructions a push of build $1 with $2 connections.
count() {
  trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT
  local build=$1 connections=$2 port deadline=$((SECONDS + START_SECONDS))
  port=$(free_port)
  rm -rf "$scratch"/out* "$scratch/data"
  LD_PRELOAD="$scratch/ring-wait.so" valgrind --tool=callgrind --separate-threads=yes --instr-atstart=no --callgrind-out-file="$scratch/out" \
    "$build" serve --listen "127.0.0.1:$port" --data-dir "$scratch/data" --cores 1 --sync none \
    --postgres postgres://nobody@127.0.0.1:1/nowhere >"$scratch/log" 2>&1 &
  pid=$!
  until curl -fsm 5 "http://127.0.0.1:$port/health" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || die "the daemon does not start: $(tail -n 3 "$scratch/log")"
    sleep 0.5
  done
  push "$connections" "$port"
  callgrind_control -i on "$pid" >&2
  push "$connections" "$port"
  callgrind_control -i off "$pid" >&2
  callgrind_control --dump "$pid" >&2
  # The dump is written a while later, one thread after the other. No push takes fewer than a thousand instructions.
  until [ "$(most_instructions)" -gt $((REQUESTS * 1000)) ]; do
    [ $SECONDS -lt $deadline ] || die "callgrind writes no counts"
    sleep 0.5
  done
  # Its log is thrown away, and an orderly stop takes long under callgrind.
  kill -KILL "$pid"
  wait "$pid" 2>/dev/null || true
  awk -v n="$(most_instructions)" -v requests="$REQUESTS" 'BEGIN { printf "%.2f", n / requests / 1000 }'
}

[ $# -gt 0 ] || die "usage: bench/instructions.sh BUILD..."
install_missing valgrind:valgrind curl:curl cc:gcc
cc -O2 -shared -fPIC -o "$scratch/ring-wait.so" bench/ring-wait.c
printf '| connections |'; printf ' %s |' "$@"; echo
printf '|---|'; printf -- '---|%.0s' "$@"; echo
for connections in ${CONNECTIONS//,/ }; do
  printf '| %s |' "$connections"
  for build; do
    say "$build, $connections connections"
    printf ' %s |' "$(count "$build" "$connections")"
  done
  echo
done
