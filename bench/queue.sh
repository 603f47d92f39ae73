#!/usr/bin/env bash
# Consumers on a backlog, beside the bare read of the same rows by their key. PostgreSQL, the daemon and the load share the machine.
# Prints a Markdown table on standard output, progress on standard error.
#
#   bench/queue.sh
#   PARTITIONS=100000 MESSAGES=40 bench/queue.sh
#
# FOREBAY        the daemon (target/release/forebay)
# PARTITIONS     partitions with a backlog (1000)
# MESSAGES       messages of each (4000)
# CONSUMERS      connections that pop at once (32)
# SECONDS_EACH   length of each part (3)
# ROUNDS         parts of each kind, in turn (3)
# SCRATCH        directory of the daemon's log (target/bench); PostgreSQL's is below TMPDIR or /tmp
#
# Each part is a group of its own that begins with the first message, and has a second before it is measured. Messages are counted
# by the cursors, so a pop that found nothing counts for nothing. A pair of lease and ack are two requests. Everything is on
# loopback and a unix socket, bounded in time, and stopped by its process id.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."

FOREBAY=${FOREBAY:-target/release/forebay}
PARTITIONS=${PARTITIONS:-1000}
MESSAGES=${MESSAGES:-4000}
CONSUMERS=${CONSUMERS:-32}
SECONDS_EACH=${SECONDS_EACH:-3}
ROUNDS=${ROUNDS:-3}
SCRATCH=${SCRATCH:-target/bench}

# shellcheck source=bench/common.sh
source bench/common.sh
# shellcheck source=bench/server.sh
source bench/server.sh

cluster='' owner=()
clean_up() {
  [ -z "$forebay_pid" ] || stop_pid "$forebay_pid"
  [ -z "$cluster" ] || "${owner[@]}" "$bin/pg_ctl" -D "$cluster/data" -m immediate -w stop >/dev/null 2>&1 || true
  [ -z "$cluster" ] || rm -rf "$cluster"
  [ -z "$scratch" ] || rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

install_missing wrk:wrk curl:curl
make_scratch
bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || die "no PostgreSQL; make deps installs it"
cluster=$(mktemp -d)
if [ "$(id -u)" = 0 ]; then
  owner=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  chown postgres "$cluster"
  # The daemon keeps no right to pass other accounts' directories.
  chmod 755 "$cluster"
fi
"${owner[@]}" "$bin/initdb" -D "$cluster/data" -U forebay -A trust -E UTF8 >/dev/null
"${owner[@]}" "$bin/pg_ctl" -D "$cluster/data" -l "$cluster/log" -w start \
  -o "-c listen_addresses='' -c unix_socket_directories=$cluster -c shared_buffers=1GB -c max_wal_size=8GB" >/dev/null
sql() { "$bin/psql" -h "$cluster" -U forebay -d postgres -XAtqc "$1"; }

port=$(free_port)
"$FOREBAY" serve --listen "127.0.0.1:$port" --data-dir "$scratch/data" --postgres "postgres://forebay@/postgres?host=$cluster" \
  >"$scratch/log" 2>&1 &
forebay_pid=$!
deadline=$((SECONDS + START_SECONDS))
until [ "$(sql "SELECT count(*) FROM pg_tables WHERE schemaname = 'forebay' AND tablename = 'cursors'")" = 1 ]; do
  [ $SECONDS -lt $deadline ] || die "the daemon does not start: $(tail -n 3 "$scratch/log")"
  sleep 0.1
done
say "writing $((PARTITIONS * MESSAGES)) messages"
sql "INSERT INTO forebay.queues (name) VALUES ('q');
     INSERT INTO forebay.partitions (queue_id, name, last_seq) SELECT 1, n::text, $MESSAGES FROM generate_series(1, $PARTITIONS) n"
sql "INSERT INTO forebay.messages (partition_id, seq, created_at, id, payload)
     SELECT p.id, s, now(), gen_random_uuid(), jsonb_build_object('n', s, 'text', 'some text of a message')
     FROM forebay.partitions p, generate_series(1, $MESSAGES) s"
sql "VACUUM ANALYZE"
sql "CHECKPOINT"

results=$scratch/results
base=http://127.0.0.1:$port
# Messages that a group has taken.
taken() { sql "SELECT coalesce(sum(c.cursor_seq), 0) FROM forebay.cursors c JOIN forebay.consumer_groups g ON g.id = c.group_id WHERE g.name = '$1'"; }

# Pops of auto-ack, or pairs of lease and ack: kind, batch, round.
consume() {
  local group=$1-$2-$3 before after start end query arguments=() script=()
  query="/api/v1/pop/queue/q?batch=$2&consumerGroup=$group"
  if [ "$1" = auto ]; then
    arguments=("$base$query&autoAck=true")
  else
    script=(-s bench/wrk/lease.lua)
    arguments=("$base" -- "$query")
  fi
  wrk -t1 -c"$CONSUMERS" -d1 "${script[@]}" "${arguments[@]}" >/dev/null
  before=$(taken "$group")
  start=$EPOCHREALTIME
  wrk -t1 -c"$CONSUMERS" -d"$SECONDS_EACH" "${script[@]}" "${arguments[@]}" >"$scratch/wrk"
  end=$EPOCHREALTIME
  after=$(taken "$group")
  [ "$after" -lt $((PARTITIONS * MESSAGES)) ] || say "$group: the backlog came to its end; MESSAGES is too small"
  awk -v kind="$1 $2" -v messages=$((after - before)) -v seconds="$(awk "BEGIN { print $end - $start }")" -v batch="$2" \
    'BEGIN { printf "%s\t%.0f\t%.0f\n", kind, messages / batch / seconds, messages / seconds }' >>"$results"
}

# The bare read of so many rows by their key, prepared, on one connection.
bare() {
  printf '\\set p random(1, %d)\n\\set s random(0, %d)\nSELECT seq, created_at, id, trace_id, transaction_key, transaction_id, producer_sub, payload::text FROM forebay.messages WHERE partition_id = :p AND seq > :s AND seq <= :s + %d ORDER BY seq;\n' \
    "$PARTITIONS" $((MESSAGES > $1 ? MESSAGES - $1 : 0)) "$1" >"$scratch/bare.sql"
  "$bin/pgbench" -h "$cluster" -U forebay -d postgres -n -M prepared -c 1 -T "$SECONDS_EACH" -f "$scratch/bare.sql" 2>/dev/null |
    awk -v batch="$1" '/^tps/ { printf "bare %d\t%.0f\t%.0f\n", batch, $3, $3 * batch }' >>"$results"
}

for round in $(seq "$ROUNDS"); do
  say "round $round"
  for batch in 1 10 100; do consume auto "$batch" "$round"; done
  for batch in 1 10; do consume lease "$batch" "$round"; done
  bare 100
  tail -n 6 "$results" >&2
done

column() { awk -F '\t' -v kind="$1" -v column="$2" '$1 == kind { print $column }' "$results" | spread_of 1 0; }
echo "| $CONSUMERS consumers, $PARTITIONS partitions | pops/s | messages/s |"
echo '|---|---|---|'
for kind in 'auto 1' 'auto 10' 'auto 100' 'lease 1' 'lease 10' 'bare 100'; do
  echo "| $kind | $(column "$kind" 2) | $(column "$kind" 3) |"
done
