#!/usr/bin/env bash
# What others feel of clients that are as slow as they may be: latency of their pushes with and without such clients, in turn, and
# the daemon's memory. Prints a Markdown table on standard output, progress on standard error. Exit status 1 if a push of
# others is not answered 2xx, if their 99th percentile is more than 5 times what it is without slow clients, or if memory grows
# by more than the budget and 16 KiB a connection.
#
#   bench/slow-clients.sh
#
# FOREBAY   the daemon (target/release/forebay)
# CORES     core threads (2)
# SECONDS_EACH   length of each part (15)
# ROUNDS    parts of each kind (3)
# SCRATCH   directory on a disk (target/bench)
#
# The slow clients: four that each hold a body of 15 MB at 2 KiB a second, 24 that read no answers, and 200 without a token, in each
# phase of a request and each coding. Whoever is cut comes again. The others push bodies of 100 bytes to 1 MB with a token over
# eight connections. Everything is on loopback, bounded in time, and stopped by its process id.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

FOREBAY=${FOREBAY:-target/release/forebay}
CORES=${CORES:-2}
SECONDS_EACH=${SECONDS_EACH:-15}
ROUNDS=${ROUNDS:-3}
SCRATCH=${SCRATCH:-target/bench}

# shellcheck source=bench/common.sh
source bench/common.sh
# shellcheck source=bench/server.sh
source bench/server.sh

clean_up() {
  # shellcheck disable=SC2046 # process ids
  kill -KILL $(jobs -p) 2>/dev/null || true
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_missing python3:python3 curl:curl
make_scratch
port=$(free_port)
token=$("$FOREBAY" token new --tokens-file "$scratch/tokens.toml" --scopes push,admin)
"$FOREBAY" serve --listen "127.0.0.1:$port" --data-dir "$scratch/data" --cores "$CORES" --tokens-file "$scratch/tokens.toml" \
  --wal-max-bytes 16GiB --postgres postgres://nobody@127.0.0.1:1/nowhere >"$scratch/log" 2>&1 &
pid=$!
deadline=$((SECONDS + START_SECONDS))
until curl -fsm 5 "http://127.0.0.1:$port/health" >/dev/null 2>&1; do
  [ $SECONDS -lt $deadline ] || die "the daemon does not start: $(tail -n 3 "$scratch/log")"
  sleep 0.1
done
TOKEN=$token python3 bench/slow-clients.py --port "$port" --pid "$pid" --cores "$CORES" --seconds "$SECONDS_EACH" --rounds "$ROUNDS"
