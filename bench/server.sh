# Starts and stops the daemon, keeps its log below its quota, and measures its CPU time. The daemon runs on one core, without
# PostgreSQL. Sourced after common.sh in the repository's root. The benchmark sets SERVER_CORE, LOAD_CORE, FOREBAY, MODE and
# SCRATCH, and defines a function `warm_up_forebay`. It may set `forebay_options`, additional options of the daemon, and
# `scheme` and `headers` for requests to it.
# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154 # the benchmark and common.sh set these

MAX_WAL_BYTES=$((40 << 30)) # more than one run writes; but at most half of the free space is used
START_SECONDS=30            # how long a server may take until it responds
STOP_SECONDS=15             # how long a server may take to stop until it is killed
BODY='{"items":[{"queue":"bench","payload":{"n":1234567890}}],"bufferMs":100,"bufferMax":100}' # as in wrk/push.lua

scratch='' forebay_pid='' forebay_options=() scheme=http headers=()

# Installs the packages whose commands are missing. Each argument is COMMAND:PACKAGE. A service in a package is not started,
# neither now nor at the next boot.
install_missing() {
  local packages=() sudo=() policy=/usr/sbin/policy-rc.d made_policy='' wanted
  for wanted in "$@"; do
    PATH=$PATH:/usr/sbin command -v "${wanted%%:*}" >/dev/null || packages+=("${wanted##*:}")
  done
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing, and no apt-get to install them: ${packages[*]}"
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  say "installing ${packages[*]}"
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
    "${sudo[@]}" chmod 755 $policy
    made_policy=1
  fi
  local status=0
  { "${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${packages[@]}"; } >&2 || status=$?
  [ -z "$made_policy" ] || "${sudo[@]}" rm -f $policy
  case " ${packages[*]} " in *" nginx-light "*)
    if [ -d /run/systemd/system ]; then "${sudo[@]}" systemctl disable --now nginx >&2 || true; fi ;;
  esac
  [ $status = 0 ] || die "the packages could not be installed"
}

# A free port of 127.0.0.1, outside the range of ephemeral ports.
free_port() {
  local port
  for port in $(shuf -i 20000-29999 -n 200); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
  die "no free port"
}

stop_pid() {
  local pid=$1 tenths=0
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do
    tenths=$((tenths + 1))
    if [ $tenths -gt $((STOP_SECONDS * 10)) ]; then
      say "process $pid does not stop; killing it"
      kill -KILL "$pid" 2>/dev/null || true
      break
    fi
    sleep 0.1
  done
  wait "$pid" 2>/dev/null || true
}

# Stops the daemon and removes its files.
clean_up_forebay() {
  [ -z "$forebay_pid" ] || stop_pid "$forebay_pid"
  [ -z "$scratch" ] || rm -rf "$scratch"
  [ ! -d "$SCRATCH" ] || rmdir --ignore-fail-on-non-empty "$SCRATCH"
}

# Waits until a server responds to a push with the expected status, and keeps the connection open after it.
await_server() {
  local name=$1 pid=$2 port=$3 expected=$4 log=$5 tries=0 seen
  local url=$scheme://127.0.0.1:$port/api/v1/push
  while :; do
    # The second request of the call needs no new connection if the server has kept the first one open.
    seen=$(curl -s -k -m 5 -o /dev/null -o /dev/null -w '%{http_code}/%{num_connects} ' \
      -H 'Content-Type: application/json' "${headers[@]}" --data-binary "$BODY" "$url" "$url") || true
    [ "$seen" != "$expected/1 $expected/0 " ] || return 0
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$log" >&2; die "$name ended at its start"; }
    tries=$((tries + 1))
    if [ $tries -gt $((START_SECONDS * 5)) ]; then
      tail -n 20 "$log" >&2
      die "$name responded '$seen', not '$expected/1 $expected/0 ' (status/new connections)"
    fi
    sleep 0.2
  done
}

# Starts the daemon with an empty data directory and an unreachable PostgreSQL: nothing listens on port 1.
start_forebay() {
  forebay_port=$(free_port)
  local free_bytes
  free_bytes=$(($(stat -f -c '%a * %S' "$scratch")))
  wal_bytes=$((free_bytes / 2 < MAX_WAL_BYTES ? free_bytes / 2 : MAX_WAL_BYTES))
  taskset -c "${PINNED:-$SERVER_CORE}" "$FOREBAY" serve --listen "127.0.0.1:$forebay_port" --data-dir "$scratch/data" --cores "${CORES:-1}" \
    --sync "$MODE" --postgres postgres://127.0.0.1:1/none --wal-max-bytes "$wal_bytes" \
    "${forebay_options[@]}" >"$scratch/forebay.log" 2>&1 &
  forebay_pid=$!
  await_server forebay "$forebay_pid" "$forebay_port" 201 "$scratch/forebay.log"
}

stop_forebay() {
  stop_pid "$forebay_pid"
  forebay_pid=''
  rm -rf "$scratch/data"
}

# Replaces the log by an empty one if it has reached half of its quota. With a full log, a round would measure refusals.
renew_forebay_when_full() {
  local used_bytes
  used_bytes=$(du -s -B1 "$scratch/data" | cut -f1)
  if [ "$used_bytes" -gt $((wal_bytes / 2)) ]; then
    say "the log has $((used_bytes >> 20)) MiB; restarting with an empty one"
    stop_forebay
    start_forebay
    warm_up_forebay
  fi
}

# The ids of a process and all its descendants.
process_tree() {
  local child
  printf '%s\n' "$1"
  # shellcheck disable=SC2013 # process ids are words
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do process_tree "$child"; done
}

# CPU time of a process and its descendants, in ticks: utime and stime, the 12th and 13th field after the name in parentheses.
cpu_ticks() {
  local pid
  for pid in $(process_tree "$1"); do sed 's/.*) //' "/proc/$pid/stat"; done | awk '{ sum += $12 + $13 } END { print sum }'
}

# Busy time of the two cores, in ticks, including other processes.
busy_ticks() {
  awk -v a="cpu$SERVER_CORE" -v b="cpu$LOAD_CORE" '$1 == a || $1 == b { sum += $2 + $3 + $4 + $7 + $8 + $9 }
    END { print sum }' /proc/stat
}
