#!/usr/bin/env bash
# Pushes earthquakes.ndjson to the queue `quakes` of a running daemon with one call of curl, waits until all records are in
# PostgreSQL, and queries PostgreSQL for the ten strongest earthquakes. The script can be run repeatedly: each line has a
# transaction id, so a second run adds nothing.
#
# FOREBAY_URL       address of the daemon (default http://127.0.0.1:6632)
# FOREBAY_PSQL      psql (default: the one in PATH, else the newest of the distribution's packages)
# FOREBAY_POSTGRES, DATABASE_URL, PGHOST …   the database; the first that is set counts, as for the daemon. Default: the
#                   daemon's private PostgreSQL in FOREBAY_DATA_DIR (default ./forebay-data, else forebay-data beside this
#                   directory)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
file=$here/earthquakes.ndjson
url=${FOREBAY_URL:-http://127.0.0.1:6632}
# Prefix of the transaction ids, followed by the line's number.
key=earthquakes.ndjson
drain_wait_s=60

die() {
  printf 'earthquakes.sh: %s\n' "$*" >&2
  exit 1
}

# The number after the key $1 in a reply.
number() { sed -n "s/.*\"$1\":\([0-9][0-9]*\).*/\1/p"; }

find_psql() {
  if [[ -n ${FOREBAY_PSQL:-} ]]; then
    printf '%s\n' "$FOREBAY_PSQL"
  elif command -v psql >/dev/null; then
    printf 'psql\n'
  else
    printf '%s\n' /usr/lib/postgresql/*/bin/psql | sort -V | tail -n 1
  fi
}

# The socket directory of the private PostgreSQL, from its configuration file.
private_socket_dir() {
  local dir conf
  for dir in "${FOREBAY_DATA_DIR:-./forebay-data}" "$here/../forebay-data"; do
    conf=$dir/postgres/forebay.conf
    [[ -r $conf ]] || continue
    sed -n "s/^unix_socket_directories = '\"\(.*\)\"'$/\1/p" "$conf"
    return
  done
  return 1
}

# Sets `database` to the arguments with which psql reaches the database.
find_database() {
  local named=${FOREBAY_POSTGRES:-${DATABASE_URL:-}} socket_dir
  if [[ -n $named && $named != embedded ]]; then
    database=(-d "$named")
  elif [[ -z $named && -n ${PGHOST:-}${PGPORT:-}${PGUSER:-}${PGDATABASE:-} ]]; then
    database=()
  else
    socket_dir=$(private_socket_dir) ||
      die "no private PostgreSQL in ${FOREBAY_DATA_DIR:-./forebay-data}; set FOREBAY_DATA_DIR, or PGHOST and the like"
    database=(-h "$socket_dir" -p 5432 -U forebay -d forebay)
  fi
}

query() { "$psql" -X -q -v ON_ERROR_STOP=1 "${database[@]}" "$@"; }

psql=$(find_psql)
find_database

lines=$(grep -c . "$file")
# `return=minimal` leaves out the list of 500 ids.
reply=$(curl -sS --max-time 30 --data-binary "@$file" -H 'Content-Type: application/x-ndjson' \
  -H "Idempotency-Key: $key" -H 'Prefer: return=minimal' "$url/push/quakes") || die "is the daemon running at $url?"
count=$(number count <<<"$reply")
[[ $count == "$lines" ]] || die "sent $lines lines, the daemon replied: $reply"
printf '%s records are durable in the log of %s\n' "$count" "$url"

# `pending` counts all messages in the log, also those of other clients.
deadline=$((SECONDS + drain_wait_s))
until pending=$(curl -sS --max-time 10 "$url/api/v1/status/buffers" | number pending) && [[ $pending == 0 ]]; do
  ((SECONDS < deadline)) || die "after $drain_wait_s s still ${pending:-an unknown number of} messages not in PostgreSQL"
  sleep 0.1
done

stored=$(query -A -t -c "SELECT count(*) FROM forebay.message_log
  WHERE queue = 'quakes' AND transaction_id LIKE '$key/%'")
[[ $stored == "$lines" ]] || die "sent $lines records, PostgreSQL has $stored of them"
printf '%s records are in PostgreSQL; the ten strongest:\n\n' "$stored"

query -P footer=off -c "SELECT (payload #>> '{properties,mag}')::numeric AS magnitude,
    to_timestamp((payload #>> '{properties,time}')::bigint / 1000) AT TIME ZONE 'UTC' AS utc,
    payload #>> '{properties,place}' AS place
  FROM forebay.message_log
  WHERE queue = 'quakes' AND transaction_id LIKE '$key/%' AND payload #>> '{properties,mag}' IS NOT NULL
  ORDER BY magnitude DESC, seq LIMIT 10"
