#!/usr/bin/env bash
# Measures the edge beyond small requests in a closed loop, without PostgreSQL. Prints a Markdown table on standard output and
# progress on standard error. The parts are:
#
#   items    many messages per request
#   lines    NDJSON
#   one      one connection, compared with the bare disk
#   half     half of the peak rate, in an open loop
#   idle     idle connections
#   cores    two cores, compared with one
#   access   the cost of tokens and TLS
#
#   bench/bounds.sh                                  all parts, a few minutes
#   ONLY=items,idle ROUNDS=5 bench/bounds.sh
#
# Environment variables, with their defaults in parentheses:
#
# ONLY               parts, separated by commas (all)
# MODE               the log's --sync: direct, fdatasync or none (direct)
# ROUNDS             rounds of each measurement (3)
# SECONDS_PER_ROUND  length of a round (5)
# WARM_UP_SECONDS    load before the rounds that is not measured (2)
# IDLE               idle connections (10000)
# SERVER_CORE        core of the daemon (the core that handles the disk's interrupts)
# LOAD_CORE          core of the load (another one)
# FOREBAY, BENCH     the daemon and the load generator (target/release/forebay, target/release/forebay-bench)
# SCRATCH            directory for the log, on a disk (target/bounds); the script removes what it writes
#
# The benchmark uses loopback only. All programs are bounded in time, and stopped by their process ids.
set -euo pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."

ONLY=${ONLY:-items,lines,one,half,idle,cores,access}
MODE=${MODE:-direct}
ROUNDS=${ROUNDS:-3}
SECONDS_PER_ROUND=${SECONDS_PER_ROUND:-5}
WARM_UP_SECONDS=${WARM_UP_SECONDS:-2}
IDLE=${IDLE:-10000}
FOREBAY=${FOREBAY:-target/release/forebay}
BENCH=${BENCH:-target/release/forebay-bench}
SCRATCH=${SCRATCH:-target/bounds}

LINES_BYTES=$((1 << 20)) # size of one NDJSON body
FIO_FILE_BYTES=$((256 << 20))

# shellcheck source=bench/common.sh
source bench/common.sh
# shellcheck source=bench/cores.sh
source bench/cores.sh
# shellcheck source=bench/server.sh
source bench/server.sh

trap clean_up_forebay EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

warm_up_forebay() { :; }

wrk_push() {
  local connections=$1 seconds=$2
  timeout $((seconds + 20)) taskset -c "$LOAD_CORE" wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s --latency \
    "${headers[@]}" -s bench/wrk/push.lua "$scheme://127.0.0.1:$forebay_port/api/v1/push"
}

wrk_body() {
  local connections=$1 seconds=$2 path=$3 kind=$4 count=$5
  timeout $((seconds + 20)) taskset -c "$LOAD_CORE" wrk -t 1 -c "$connections" -d "${seconds}s" --timeout 10s --latency \
    -s bench/wrk/body.lua "http://127.0.0.1:$forebay_port$path" -- "$kind" "$count"
}

# The figures of a run of wrk: requests/s, p50 µs, p99 µs. Dies if there were errors.
figures() {
  awk '$1 == "FIGURES" && $2 > 0 && $6 == 0 && $7 == 0 { printf "%.1f %d %d\n", $2 / $3, $4, $5; done = 1 }
    END { exit !done }' || die "wrk had errors, or got no response at all"
}

# Median (least–greatest) of column $2 of the rounds of $1, divided by $3, with $4 decimal places.
spread() {
  local column=$2 divisor=$3 digits=$4
  cut -d' ' -f"$column" "$scratch/$1.rounds" | spread_of "$divisor" "$digits"
}

row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3" >>"$scratch/report"; }

# A line of the daemon's /proc/PID/status in KiB: VmRSS is its memory now, VmHWM its peak.
memory_kib() { sed -n "s/^$1:[[:space:]]*\([0-9]*\) kB/\1/p" "/proc/$forebay_pid/status"; }

with_forebay() {
  start_forebay
  "$@"
  peak_mib=$(($(memory_kib VmHWM) / 1024))
  say "peak memory $peak_mib MiB"
  printf '%s\n' "$peak_mib" >>"$scratch/peaks"
  stop_forebay
}

items() {
  local connections round
  for connections in 8 32; do
    wrk_body $connections "$WARM_UP_SECONDS" /api/v1/push items 100 >/dev/null
    for ((round = 1; round <= ROUNDS; round++)); do
      renew_forebay_when_full
      wrk_body $connections "$SECONDS_PER_ROUND" /api/v1/push items 100 | figures >>"$scratch/items-$connections.rounds"
      say "100 messages per request, $connections connections: $(tail -n 1 "$scratch/items-$connections.rounds")"
    done
    row "100 messages per request, $connections connections" \
      "$(spread items-$connections 1 10000 2) million messages/s, p50 $(spread items-$connections 2 1000 2) ms" \
      'at least 1 million'
  done
}

lines() {
  local round
  wrk_body 8 "$WARM_UP_SECONDS" /push/bench lines $LINES_BYTES >/dev/null
  for ((round = 1; round <= ROUNDS; round++)); do
    renew_forebay_when_full
    wrk_body 8 "$SECONDS_PER_ROUND" /push/bench lines $LINES_BYTES | figures >>"$scratch/lines.rounds"
    say "NDJSON: $(tail -n 1 "$scratch/lines.rounds")"
  done
  row "NDJSON, bodies of 1 MiB, records of about 340 bytes, 8 connections" \
    "$(spread lines 1 "$(awk -v b=$LINES_BYTES 'BEGIN { print 1e6 / b }')" 0) MB/s of bodies" 'at least 300'
}

# The median latency in µs of synced 4 KiB writes on the same core, as the log makes them.
fio_once() {
  taskset -c "$SERVER_CORE" fio --name=one --filename="$scratch/fio" --ioengine=io_uring --iodepth=1 --rw=write --bs=4096 \
    --direct=1 --sync=dsync --overwrite=1 --size=$FIO_FILE_BYTES --time_based --runtime="$SECONDS_PER_ROUND" --lat_percentiles=1 \
    --percentile_list=50 --output-format=json --output="$scratch/fio.json" >&2 || die "fio failed"
  jq -r '.jobs[0].write.lat_ns.percentile["50.000000"] / 1000 | floor' "$scratch/fio.json"
}

one() {
  local round
  dd if=/dev/zero of="$scratch/fio" bs=1M count=$((FIO_FILE_BYTES >> 20)) conv=fsync status=none
  wrk_push 1 "$WARM_UP_SECONDS" >/dev/null
  for ((round = 1; round <= ROUNDS; round++)); do
    printf '%s %s\n' "$(wrk_push 1 "$SECONDS_PER_ROUND" | figures | cut -d' ' -f2)" "$(fio_once)" |
      awk '{ print $1, $2, $1 / $2 }' >>"$scratch/one.rounds"
    say "one connection, the disk, ratio: $(tail -n 1 "$scratch/one.rounds")"
  done
  rm "$scratch/fio"
  row 'one connection: p50 / p50 of a synced 4 KiB write (fio)' \
    "$(spread one 1 1 0) µs / $(spread one 2 1 0) µs = $(spread one 3 1 2)" 'at most 1.2'
}

half() {
  local round peak rate
  wrk_push 128 "$WARM_UP_SECONDS" >/dev/null
  for ((round = 1; round <= ROUNDS; round++)); do
    renew_forebay_when_full
    wrk_push 128 "$SECONDS_PER_ROUND" | figures | awk '{ print $0, $3 / $2 }' >>"$scratch/peak.rounds"
    say "128 connections: $(tail -n 1 "$scratch/peak.rounds")"
  done
  peak=$(cut -d' ' -f1 "$scratch/peak.rounds" | median_of)
  rate=$(awk -v peak="$peak" 'BEGIN { printf "%.0f", peak / 2 }')
  for ((round = 1; round <= ROUNDS; round++)); do
    renew_forebay_when_full
    taskset -c "$LOAD_CORE" "$BENCH" push --url "http://127.0.0.1:$forebay_port" --buffered --connections 128 --threads 1 \
      --rate "$rate" --duration "$SECONDS_PER_ROUND" --json >"$scratch/half.json"
    # Not at the end of a pipe, where jq would start on the server's core.
    jq -r '"\(.requests_per_s) \(.latency_us.p50) \(.latency_us.p99)"' "$scratch/half.json" >>"$scratch/half.rounds"
    say "at $rate requests/s: $(tail -n 1 "$scratch/half.rounds")"
  done
  row '128 connections: p99 / p50' \
    "$(spread peak 3 1000 2) ms / $(spread peak 2 1000 2) ms = $(spread peak 4 1 2)" 'at most 3'
  row "half of that rate, open loop ($rate requests/s due, $(spread half 1 1 0) made)" \
    "p50 $(spread half 2 1000 2) ms, p99 $(spread half 3 1000 2) ms" 'p99 at most 3 ms'
}

idle() {
  local before full after holder
  # Memory that the first connections allocate for good is not counted.
  wrk_push 64 1 >/dev/null
  sleep 3
  before=$(memory_kib VmRSS)
  coproc HOLD { "$BENCH" hold --url "http://127.0.0.1:$forebay_port" --connections "$IDLE"; }
  holder=$HOLD_PID
  read -r -u "${HOLD[0]}" _ || die "the idle connections could not be opened"
  sleep 5
  full=$(memory_kib VmRSS)
  # Its standard input ends, and it closes the connections.
  eval "exec ${HOLD[1]}>&-"
  wait "$holder" 2>/dev/null || true
  sleep 5
  after=$(memory_kib VmRSS)
  say "memory before, with and after $IDLE idle connections: $before $full $after KiB"
  row "$IDLE idle connections, each used once" \
    "$(awk -v a="$before" -v b="$full" -v n="$IDLE" 'BEGIN { printf "%.2f", (b - a) / n }') KiB each" 'at most 2 KiB'
  row 'memory after they are closed / before' "$after KiB / $before KiB" 'within 10 %'
}

# Runs a command of wrk. Prints the daemon's CPU µs per request, and requests/s.
cpu_under() {
  local before after
  before=$(cpu_ticks "$forebay_pid")
  "$@" >"$scratch/wrk.out"
  after=$(cpu_ticks "$forebay_pid")
  figures <"$scratch/wrk.out" >/dev/null
  awk -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
    $1 == "FIGURES" { printf "%.2f %.0f\n", ticks / hz * 1e6 / $2, $2 / $3 }' "$scratch/wrk.out"
}

# Load on both cores.
wrk_both() {
  wrk -t 2 -c 256 -d "${1}s" --latency -s bench/wrk/push.lua "http://127.0.0.1:$forebay_port/api/v1/push"
}

cores() {
  local round cores
  for ((round = 1; round <= ROUNDS; round++)); do
    for cores in 1 2; do
      CORES=$cores PINNED="$SERVER_CORE,$LOAD_CORE" start_forebay
      wrk_both 2 >/dev/null
      cpu_under wrk_both "$SECONDS_PER_ROUND" >>"$scratch/cores-$cores.rounds"
      say "$cores cores: $(tail -n 1 "$scratch/cores-$cores.rounds") (CPU µs per request, requests/s)"
      stop_forebay
    done
  done
  paste -d' ' "$scratch/cores-1.rounds" "$scratch/cores-2.rounds" | awk '{ print $3 / $1 }' >"$scratch/cores.rounds"
  row 'two cores / one core, the load on the same two: CPU per request' \
    "$(spread cores-2 1 1 2) µs / $(spread cores-1 1 1 2) µs = $(spread cores 1 1 2)" 'at most 1.1'
}

# Sets the daemon's options and the requests' headers and scheme. $1 is `open`, or contains `token`, `TLS` or both.
set_access() {
  forebay_options=() headers=() scheme=http
  case $1 in *token*)
    forebay_options+=(--tokens-file "$scratch/tokens.toml")
    headers=(-H "Authorization: Bearer $token") ;;
  esac
  case $1 in *TLS*)
    forebay_options+=(--tls-cert "$scratch/cert.pem" --tls-key "$scratch/key.pem")
    scheme=https ;;
  esac
}

access() {
  local round way token
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
  token=$("$FOREBAY" token new --scopes push --tokens-file "$scratch/tokens.toml" 2>/dev/null)
  for ((round = 1; round <= ROUNDS; round++)); do
    for way in open token TLS token+TLS; do
      set_access "$way"
      start_forebay
      wrk_push 128 "$WARM_UP_SECONDS" >/dev/null
      cpu_under wrk_push 128 "$SECONDS_PER_ROUND" >>"$scratch/access-$way.rounds"
      say "$way: $(tail -n 1 "$scratch/access-$way.rounds") (CPU µs per request, requests/s)"
      stop_forebay
    done
  done
  set_access open
  for way in open token TLS token+TLS; do
    row "128 connections, $way" \
      "$(spread "access-$way" 2 1000 1) thousand requests/s, $(spread "access-$way" 1 1 2) µs of CPU per request" none
  done
}

main() {
  local part
  install_missing wrk:wrk curl:curl fio:fio jq:jq openssl:openssl
  case $MODE in direct | fdatasync | none) ;; *) die "MODE must be direct, fdatasync or none, not '$MODE'" ;; esac
  for part in ${ONLY//,/ }; do
    case $part in items | lines | one | half | idle | cores | access) ;; *) die "there is no part '$part'" ;; esac
  done
  [ -x "$FOREBAY" ] && [ -x "$BENCH" ] || die "$FOREBAY or $BENCH is missing: cargo build --release -p forebay -p forebay-bench"
  ulimit -n $((IDLE + 1024)) 2>/dev/null || ulimit -n "$(ulimit -Hn)"
  make_scratch
  pick_cores
  for part in ${ONLY//,/ }; do
    case $part in cores | access) $part ;; *) with_forebay "$part" ;; esac
  done
  printf '| what | figure | bar |\n|---|---|---|\n'
  cat "$scratch/report"
  [ ! -e "$scratch/peaks" ] || printf '\nPeak memory of the daemon: %s MiB.\n' "$(sort -n "$scratch/peaks" | tail -n 1)"
}

main
