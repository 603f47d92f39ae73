#!/usr/bin/env bash
# Compares the log with the bare disk: its group commits with fio's writes, its scan with plain reads. The two sides run in
# turn. Prints Markdown tables with ratios and bars on standard output and progress on standard error.
#
#   cargo build --release -p forebay && bench/log.sh                all parts, five minutes
#   ONLY='append latency' ROUNDS=15 bench/log.sh                    some parts
#
# Environment variables, with their defaults in parentheses:
#
# ONLY               parts, of append latency framing recover partial (all)
# ROUNDS             rounds of each side (7)
# SECONDS_PER_ROUND  length of a round that is bounded by time (0.5)
# LOG_BYTES          size of the log that is read (2 GiB)
# FOREBAY            the daemon, for `forebay wal verify` (target/release/forebay)
# SCRATCH            directory for the files, on a disk (target/log); the script removes what it writes
# CALM_TRIES, ROUND_TRIES   how often to probe the disk before a round, and to repeat a round, as explained below (10, 3)
#
# The script installs fio, jq and GNU time if they are missing.
#
# Virtual disks are throttled after much writing, also by other machines, which would distort the figures. Before each round
# the script therefore probes the disk, until small writes take at most twice the least time seen. If they take longer after
# the round, the round is repeated. If the disk is always busy, use ROUND_TRIES=1 CALM_TRIES=1 and more rounds.
# shellcheck disable=SC2016,SC2154 # the backquotes are Markdown; build sets bench_NAME
set -euo pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."

ONLY=${ONLY:-append latency framing recover partial}
ROUNDS=${ROUNDS:-7}
SECONDS_PER_ROUND=${SECONDS_PER_ROUND:-0.5}
LOG_BYTES=${LOG_BYTES:-$((2 << 30))}
FOREBAY=${FOREBAY:-target/release/forebay}
SCRATCH=${SCRATCH:-target/log}

IN_FLIGHT=64
RECORD_BYTES=1024
FIO_FILE_BYTES=$((128 << 20)) # four segments, about what a lane writes to in turn
CALM_TRIES=${CALM_TRIES:-10}  # probes of the disk, a second apart; then the round is run on a slow disk
ROUND_TRIES=${ROUND_TRIES:-3} # attempts at a round; the last one counts even if the disk became slow
PROGRAM_SECONDS_MAX=120
RECORDS_PER_GROUP=64          # as in wal/benches/framing.rs
PARTIAL_RECORD_BYTES=200

scratch='' least_us='' repeated=0 slow=0 block_bytes=''

# shellcheck source=bench/common.sh
source bench/common.sh

# ---- preparation -------------------------------------------------------------------------------------------------

install_missing() {
  local packages=() sudo=()
  command -v fio >/dev/null || packages+=(fio)
  command -v jq >/dev/null || packages+=(jq)
  [ -x /usr/bin/time ] || packages+=(time)
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing, and no apt-get to install them: ${packages[*]}"
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  say "installing ${packages[*]}"
  { "${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${packages[@]}"; } >&2 || die "the packages could not be installed"
}

check_settings() {
  local name
  [[ $ROUNDS =~ ^[1-9][0-9]{0,2}$ ]] || die "ROUNDS must be a positive number, not '$ROUNDS'"
  [[ $SECONDS_PER_ROUND =~ ^[0-9]{1,2}(\.[0-9]{1,3})?$ && $SECONDS_PER_ROUND =~ [1-9] ]] ||
    die "SECONDS_PER_ROUND must be a positive number, not '$SECONDS_PER_ROUND'"
  [[ $LOG_BYTES =~ ^[1-9][0-9]{7,11}$ ]] || die "LOG_BYTES must be a number of bytes of at least 10 MB, not '$LOG_BYTES'"
  for name in $ONLY; do
    case $name in append | latency | framing | recover | partial) ;; *) die "ONLY: there is no part '$name'" ;; esac
  done
  ! wants recover || [ -x "$FOREBAY" ] || die "$FOREBAY is missing: cargo build --release -p forebay"
}

wants() { case " $ONLY " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

clean_up() {
  [ -z "$scratch" ] || rm -rf "$scratch"
  [ ! -d "$SCRATCH" ] || rmdir --ignore-fail-on-non-empty "$SCRATCH"
}

# Builds the benchmarks. Sets `bench_NAME` to the program of wal/benches/NAME.rs.
build() {
  local name program
  say "building"
  cargo bench -q -p forebay-wal --locked --no-run --message-format=json >"$scratch/build.json" || die "the build failed"
  while read -r name program; do
    printf -v "bench_$name" %s "$program"
  done < <(jq -r 'select(.executable != null and .target.kind == ["bench"]) | "\(.target.name) \(.executable)"' \
    "$scratch/build.json")
}

# Runs a program, and kills it if the disk makes it take too long.
bounded() { timeout "$PROGRAM_SECONDS_MAX" "$@"; }

# ---- the bare disk -----------------------------------------------------------------------------------------------

# Creates a file like the log's segments: zeros on the disk, which the benchmark overwrites.
make_fio_file() {
  [ -e "$scratch/fio" ] || dd if=/dev/zero of="$scratch/fio" bs=1M count=$((FIO_FILE_BYTES >> 20)) conv=fsync status=none
}

# Runs fio with one write at a time, each durable before the next. Prints bytes/s, and p50 and mean in µs of write and sync
# together.
run_fio() {
  local sync=$1 block_bytes=$2 ms how=(--direct=1 --sync=dsync)
  ms=$(awk -v seconds="$3" 'BEGIN { printf "%d", seconds * 1000 }')
  [ "$sync" = direct ] || how=(--direct=0 --fdatasync=1)
  fio --name=log --filename="$scratch/fio" --ioengine=io_uring --iodepth=1 --rw=write "${how[@]}" \
    --bs="$block_bytes" --size=$((FIO_FILE_BYTES / block_bytes * block_bytes)) --time_based --runtime="${ms}ms" \
    --lat_percentiles=1 --percentile_list=50 --output-format=json --output="$scratch/fio.json" >&2 || die "fio failed"
  jq -r '.jobs[0] | .write.lat_ns as $write | .sync.lat_ns as $sync | "\(.write.bw_bytes) \(
    ($write.percentile["50.000000"] + ($sync.percentile["50.000000"] // 0)) / 1000) \(
    ($write.mean + ($sync.mean // 0)) / 1000)"' "$scratch/fio.json"
}

# Whether small writes take, on average, at most twice the least time seen.
is_calm() {
  local us
  us=$(run_fio direct 4096 0.2 | cut -d' ' -f3) || exit 1
  us=${us%.*}
  [ -n "$least_us" ] && [ "$least_us" -le "$us" ] || least_us=$us
  [ "$us" -le $((2 * least_us)) ]
}

# Finds the least time of a small write. One probe is not enough, because others use the disk as well.
learn_calm() {
  local probe
  make_fio_file
  for ((probe = 1; probe <= CALM_TRIES; probe++)); do
    is_calm || true
    sleep 0.5
  done
}

await_calm() {
  local tries
  for ((tries = 1; tries < CALM_TRIES; tries++)); do
    ! is_calm || return 0
    sleep 1
  done
}

# Runs a round: the command "$@" after the first argument, which adds a line to each of the files in $1. Repeats the round if
# the disk has become slow.
calm_round() {
  local files=$1 try file
  shift
  for ((try = 1; ; try++)); do
    await_calm
    "$@"
    if is_calm; then return; fi
    if [ "$try" = "$ROUND_TRIES" ]; then
      slow=$((slow + 1))
      return
    fi
    repeated=$((repeated + 1))
    for file in $files; do sed -i '$d' "$scratch/$file"; done
  done
}

# ---- rounds ------------------------------------------------------------------------------------------------------

# Median, least and greatest value of column $2 of the file of rounds $1.
median() {
  cut -d' ' -f"$2" "$scratch/$1" | sort -n |
    awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
least() { cut -d' ' -f"$2" "$scratch/$1" | sort -n | head -n 1; }
greatest() { cut -d' ' -f"$2" "$scratch/$1" | sort -n | tail -n 1; }

# Median (least–greatest) of column $2 of the file $1, divided by $3, with $4 decimal places.
spread() {
  awk -v m="$(median "$1" "$2")" -v l="$(least "$1" "$2")" -v g="$(greatest "$1" "$2")" -v u="$3" -v d="$4" \
    'BEGIN { printf "%.*f (%.*f–%.*f)", d, m / u, d, l / u, d, g / u }'
}

# Three cells of a table: the ratio of our rounds to the other side's, as median (least–greatest); the bar; whether it is met.
verdict() {
  local ours=$1 other=$2 column=$3 kind=$4 bar=$5
  paste -d' ' <(cut -d' ' -f"$column" "$scratch/$ours") <(cut -d' ' -f"$column" "$scratch/$other") |
    awk '{ print $1 / $2 }' >"$scratch/ratios"
  awk -v ratio="$(median ratios 1)" -v shown="$(spread ratios 1 1 2)" -v bar="$bar" -v kind="$kind" 'BEGIN {
    met = kind == "least" ? ratio >= bar : ratio <= bar
    printf "%s | %s %s | %s", shown, (kind == "least" ? "at least" : "at most"), bar, (met ? "met" : "**missed**")
  }'
}

run_append() {
  local file=$1 sync=$2 in_flight=$3
  bounded "$bench_append" dir="$scratch/log-$sync" sync="$sync" in_flight="$in_flight" record_bytes=$RECORD_BYTES \
    seconds="$SECONDS_PER_ROUND" |
    jq -r '"\(.written_bytes_per_s) \(.p50_us) \(.group_bytes) \(.records_per_s)"' >>"$scratch/$file"
  block_bytes=$(tail -n 1 "$scratch/$file" | awk '{ print int($3 / 4096 + 0.5) * 4096 }')
}

# Runs the log and fio, which writes blocks of the size of the log's groups. The order alternates.
append_round() {
  local name=$1 sync=$2 in_flight=$3 round=$4
  if [ $((round % 2)) = 1 ]; then
    run_append "$name-$sync" "$sync" "$in_flight"
    run_fio "$sync" "$block_bytes" "$SECONDS_PER_ROUND" >>"$scratch/$name-$sync-fio"
  else
    run_fio "$sync" "$block_bytes" "$SECONDS_PER_ROUND" >>"$scratch/$name-$sync-fio"
    run_append "$name-$sync" "$sync" "$in_flight"
  fi
}

measure_append() {
  local name=$1 in_flight=$2 sync round
  for sync in direct fdatasync; do
    for ((round = 1; round <= ROUNDS; round++)); do
      calm_round "$name-$sync $name-$sync-fio" append_round "$name" $sync "$in_flight" $round
      say "$name, $sync: $(tail -n 1 "$scratch/$name-$sync") (bytes/s, p50 µs, group bytes, records/s)," \
        "fio $(tail -n 1 "$scratch/$name-$sync-fio")"
    done
  done
}

report_append() {
  local sync
  printf '\n**Appending %s-byte records, %s in flight on one lane**, against fio (io_uring, one write at a time, each synced) at ' \
    "$RECORD_BYTES" "$IN_FLIGHT"
  printf 'the block size that the groups had:\n\n'
  printf '| sync | records/s | group, KiB | the log, MB/s | fio, MB/s | log / fio | bar | |\n|---|---|---|---|---|---|---|---|\n'
  for sync in direct fdatasync; do
    printf '| %s | %s | %s | %s | %s | %s |\n' "$sync" "$(spread append-$sync 4 1 0)" "$(spread append-$sync 3 1024 0)" \
      "$(spread append-$sync 1 1e6 0)" "$(spread append-$sync-fio 1 1e6 0)" \
      "$(verdict append-$sync append-$sync-fio 1 least 0.9)"
  done
}

report_latency() {
  local sync
  printf '\n**One record at a time**, from the append until the record is durable, against fio'"'"'s 4 KiB write and sync:\n\n'
  printf '| sync | the log, p50 µs | fio, p50 µs | log / fio | bar | |\n|---|---|---|---|---|---|\n'
  for sync in direct fdatasync; do
    printf '| %s | %s | %s | %s |\n' "$sync" "$(spread latency-$sync 2 1 0)" "$(spread latency-$sync-fio 2 1 0)" \
      "$(verdict latency-$sync latency-$sync-fio 2 most 1.15)"
  done
}

measure_framing() {
  say "framing"
  CRITERION_HOME=$scratch/criterion bounded "$bench_framing" --bench >"$scratch/framing.out" 2>&1 ||
    { cat "$scratch/framing.out" >&2; die "the framing benchmark failed"; }
}

report_framing() {
  local payload_bytes bar
  printf '\n**Framing and checksum on one core**, no disk (criterion, medians with their 95 %% intervals):\n\n'
  printf '| payload, bytes | MB/s of payload | ns per record | bar, MB/s | |\n|---|---|---|---|---|\n'
  for payload_bytes in 64 1024 16384; do
    case $payload_bytes in 64) bar=200 ;; 1024) bar=2000 ;; *) bar=0 ;; esac
    jq -r '.median | "\(.point_estimate) \(.confidence_interval.lower_bound) \(.confidence_interval.upper_bound)"' \
      "$scratch/criterion/framing/$payload_bytes/new/estimates.json" |
      awk -v n=$RECORDS_PER_GROUP -v bytes=$payload_bytes -v bar=$bar '{
        mb = n * bytes * 1e3
        printf "| %d | %.0f (%.0f–%.0f) | %.0f | %s | %s |\n", bytes, mb / $1, mb / $3, mb / $2, $1 / n,
          (bar ? bar : "none"), (bar == 0 ? "" : mb / $1 >= bar ? "met" : "**missed**") }'
  done
}

recover_round() {
  local wal=$scratch/data/wal mode bytes
  for mode in scan plain; do
    bounded "$bench_recover" mode=$mode dir="$wal" | jq -r '"\(.bytes_per_s) \(.memory_bytes) \(.bytes)"' \
      >>"$scratch/recover-$mode"
  done
  # The plain read with O_DIRECT has removed the files from the page cache.
  bytes=$(tail -n 1 "$scratch/recover-plain" | cut -d' ' -f3)
  bounded /usr/bin/time -o "$scratch/time" -f '%e %M' "$FOREBAY" wal verify --data-dir "$scratch/data" \
    >"$scratch/verify.out" 2>&1 || { cat "$scratch/verify.out" >&2; die "forebay wal verify failed"; }
  awk -v bytes="$bytes" '{ printf "%.0f %d\n", bytes / $1, $2 * 1024 }' "$scratch/time" >>"$scratch/recover-verify"
}

measure_recover() {
  local round mode wal=$scratch/data/wal figures
  await_calm
  say "writing a log of $((LOG_BYTES >> 20)) MiB"
  mkdir -p "$wal"
  bounded "$bench_recover" mode=make dir="$wal" bytes="$LOG_BYTES" record_bytes=$RECORD_BYTES in_flight=$IN_FLIGHT >&2
  for ((round = 1; round <= ROUNDS; round++)); do
    calm_round 'recover-scan recover-plain recover-verify' recover_round
    figures=$(for mode in scan plain verify; do printf '%s %s, ' $mode "$(tail -n 1 "$scratch/recover-$mode")"; done)
    say "recover: ${figures%, } (bytes/s, bytes of memory)"
  done
}

report_recover() {
  local mode title memory
  printf '\n**Reading a log of %s MiB** (%s-byte records in groups of %s), against a plain sequential read of the same files with `O_DIRECT`, ' \
    $((LOG_BYTES >> 20)) $RECORD_BYTES $IN_FLIGHT
  printf '1 MiB at a time:\n\n'
  printf '| | MB/s | / plain read | bar | | peak memory, MiB | bar | |\n|---|---|---|---|---|---|---|---|\n'
  printf '| plain read | %s | | | | | | |\n' "$(spread recover-plain 1 1e6 0)"
  for mode in scan verify; do
    title='recovery'"'"'s scan (memory: growth)'
    [ $mode = scan ] || title='`forebay wal verify` (memory: the process)'
    memory=$(greatest recover-$mode 2)
    printf '| %s | %s | %s | %s | under 32 | %s |\n' "$title" "$(spread recover-$mode 1 1e6 0)" \
      "$(verdict recover-$mode recover-plain 1 least 0.8)" \
      "$(awk -v bytes="$memory" 'BEGIN { printf "%.1f", bytes / 1048576 }')" \
      "$([ "$memory" -lt $((32 << 20)) ] && echo met || echo '**missed**')"
  done
}

partial_round() {
  local sync=$1 connections=$2 pattern
  for pattern in pad rewrite; do
    bounded "$bench_partial_blocks" dir="$scratch/partial-$sync" sync="$sync" connections="$connections" \
      pattern=$pattern record_bytes=$PARTIAL_RECORD_BYTES seconds="$SECONDS_PER_ROUND" |
      jq -r '"\(.records_per_s) \(.p50_us) \(.p99_us) \(.written_bytes_per_record) \(.log_bytes_per_record)"' \
        >>"$scratch/partial-$sync-$connections-$pattern"
  done
}

measure_partial() {
  local sync connections round name
  for sync in direct fdatasync; do
    for connections in 1 16; do
      name=partial-$sync-$connections
      for ((round = 1; round <= ROUNDS; round++)); do
        calm_round "$name-pad $name-rewrite" partial_round $sync $connections
      done
      say "$name: pad $(tail -n 1 "$scratch/$name-pad"), rewrite $(tail -n 1 "$scratch/$name-rewrite")"
    done
  done
}

report_partial() {
  local sync connections pattern name
  printf '\n**The last block of a group**: filled with zeros, so that the next group starts on a new block (*pad*, as the log does), '
  printf 'or written again together with the next group (*rewrite*). Plain writes of groups of one %s-byte record per connection:\n\n' \
    "$PARTIAL_RECORD_BYTES"
  printf '| sync | connections | | records/s | p50 µs | p99 µs | bytes written per record | bytes of log per record |\n'
  printf '|---|---|---|---|---|---|---|---|\n'
  for sync in direct fdatasync; do
    for connections in 1 16; do
      for pattern in pad rewrite; do
        name=partial-$sync-$connections-$pattern
        printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' $sync $connections $pattern "$(spread $name 1 1 0)" \
          "$(spread $name 2 1 0)" "$(median $name 3)" "$(median $name 4)" "$(median $name 5)"
      done
    done
  done
}

print_head() {
  local model
  model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
  printf '`ROUNDS=%s SECONDS_PER_ROUND=%s bench/log.sh`, %s\n\n' "$ROUNDS" "$SECONDS_PER_ROUND" "$(date -u +%Y-%m-%d)"
  printf '%s cores of %s, Linux %s, %s, %s. The sides run in turn, %s rounds of %s s; medians (least–greatest).\n' "$(nproc --all)" \
    "${model:-an unnamed processor}" "$(uname -r)" "$(file_system)" "$(fio --version)" "$ROUNDS" "$SECONDS_PER_ROUND"
  printf 'Ratios are medians of the ratios of the rounds. %s rounds were repeated, and %s were counted although the disk had become ' \
    "$repeated" "$slow"
  printf 'slow.\n'
}

main() {
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  install_missing
  check_settings
  make_scratch
  build
  learn_calm
  ! wants latency || measure_append latency 1
  ! wants partial || measure_partial
  ! wants framing || measure_framing
  ! wants append || measure_append append $IN_FLIGHT
  ! wants recover || measure_recover
  print_head
  ! wants append || report_append
  ! wants latency || report_latency
  ! wants framing || report_framing
  ! wants recover || report_recover
  ! wants partial || report_partial
}

main
