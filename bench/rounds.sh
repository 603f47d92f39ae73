# Runs rounds of wrk against a server. Each server has a file $scratch/NAME.rounds with a line per round. Sourced after
# server.sh. The benchmark sets CONNECTIONS, ROUNDS, SECONDS_PER_ROUND and WARM_UP_SECONDS.
# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154 # the benchmark and server.sh set these

# Checks the settings, and raises the limit of open files.
check_rounds() {
  local name most
  for name in ROUNDS SECONDS_PER_ROUND WARM_UP_SECONDS; do
    [[ ${!name} =~ ^[1-9][0-9]{0,4}$ ]] || die "$name must be a positive number, not '${!name}'"
  done
  [[ $CONNECTIONS =~ ^[1-9][0-9]{0,4}(,[1-9][0-9]{0,4})*$ ]] ||
    die "CONNECTIONS must be positive numbers separated by commas, not '$CONNECTIONS'"
  case $MODE in direct | fdatasync | none) ;; *) die "MODE must be direct, fdatasync or none, not '$MODE'" ;; esac
  # Every connection needs a descriptor at both ends. The limit is set once for all tables, because a lowered limit cannot be
  # raised again.
  most=$(tr ',' '\n' <<<"$CONNECTIONS" | sort -n | tail -n 1)
  ulimit -n $((most + 1024)) 2>/dev/null || ulimit -n "$(ulimit -Hn)"
  [ "$(ulimit -n)" -ge $((most + 256)) ] || die "the limit of open files is too low for $most connections"
}

run_wrk() {
  local port=$1 seconds=$2
  timeout $((seconds + 20)) taskset -c "$LOAD_CORE" wrk -t 1 -c "$CONNECTIONS" -d "${seconds}s" --timeout 10s --latency \
    -s bench/wrk/push.lua "http://127.0.0.1:$port/api/v1/push"
}

warm_up_forebay() { run_wrk "$forebay_port" "$WARM_UP_SECONDS" >/dev/null; }

# Runs one round. Appends a line to the file of rounds: requests/s, CPU µs per request, p50 µs, p99 µs, CPU of wrk in % of its
# core, CPU of other processes in % of a core.
measure() {
  local name=$1 pid=$2 port=$3 out=$scratch/wrk.out before after busy
  before=$(cpu_ticks "$pid") busy=$(busy_ticks)
  local TIMEFORMAT='LOAD %U %S'
  { time run_wrk "$port" "$SECONDS_PER_ROUND" >"$out"; } 2>"$scratch/time.out" ||
    { cat "$out" "$scratch/time.out" >&2; die "wrk failed against $name"; }
  after=$(cpu_ticks "$pid") busy=$(($(busy_ticks) - busy))
  if grep -q 'Non-2xx' "$out"; then cat "$out" >&2; die "$name sent responses other than 2xx"; fi
  awk -v ticks=$((after - before)) -v busy="$busy" -v hz="$(getconf CLK_TCK)" '
    $1 == "LOAD" { load = $2 + $3 }
    $1 == "FIGURES" {
      if ($2 == 0 || $6 > 0 || $7 > 0) exit
      others = (busy - ticks) / hz - load
      printf "%.0f %.2f %d %d %.0f %.0f\n", $2 / $3, ticks / hz * 1e6 / $2, $4, $5, load / $3 * 100,
        (others > 0 ? others / $3 * 100 : 0)
      done = 1
    }
    END { exit !done }' "$scratch/time.out" "$out" >>"$scratch/$name.rounds" ||
    { cat "$out" >&2; die "wrk had errors with $name, or got no response at all"; }
  say "$name: $(tail -n 1 "$scratch/$name.rounds") (req/s, CPU µs, p50 µs, p99 µs, wrk %, others %)"
}

# Median, least and greatest value of column $2 of the rounds of $1.
median() { cut -d' ' -f"$2" "$scratch/$1.rounds" | median_of; }
least() { cut -d' ' -f"$2" "$scratch/$1.rounds" | sort -n | head -n 1; }
greatest() { cut -d' ' -f"$2" "$scratch/$1.rounds" | sort -n | tail -n 1; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

row() {
  local name=$1 title=$2
  printf '| %s | %s | %s–%s | %s | %s | %s | %s |\n' "$title" "$(median "$name" 1)" "$(least "$name" 1)" \
    "$(greatest "$name" 1)" "$(median "$name" 2)" "$(median "$name" 3)" "$(median "$name" 4)" "$(median "$name" 5)"
}

head_row() {
  printf '| %s | requests/s | min–max | CPU µs per request | p50 µs | p99 µs | wrk, %% of its core |\n|---|---|---|---|---|---|---|\n' "$1"
}
