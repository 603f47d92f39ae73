#!/usr/bin/env bash
# Pushes with curl in the common ways. Arguments: the daemon's address, a queue, a directory for files.
# Prints the payload of each push on a line, for comparison with PostgreSQL.
set -euo pipefail
base=$1 queue=$2 dir=$3

fail() { echo "curl.sh: $*" >&2; exit 1; }

# Runs curl with the arguments after $1. The status must be $1. Leaves the reply in $dir/answer and curl's trace in $dir/trace.
run() {
    local expected=$1 status
    shift
    status=$(curl --silent --show-error --verbose --max-time 60 -o "$dir/answer" -w '%{http_code}' "$@" 2>"$dir/trace") ||
        fail "curl $*: $(tail -n 5 "$dir/trace")"
    [ "$status" = "$expected" ] || fail "curl $*: $status, $(cat "$dir/answer")"
}

# Runs curl with the arguments after $1, which must push the payload $1. Prints it.
push() {
    local payload=$1
    shift
    run 201 "$@"
    grep -q '"pushed":true' "$dir/answer" || fail "curl $*: $(cat "$dir/answer")"
    echo "$payload"
}

run 200 "$base/health"
grep -q '"status":"healthy"' "$dir/answer" || fail "health: $(cat "$dir/answer")"
run 200 --head "$base/health"
run 204 -X OPTIONS "$base/push/$queue"
grep -qi '^< allow: post' "$dir/trace" || fail "OPTIONS tells no Allow"

push '{"by":"-d"}' -d '{"by":"-d"}' "$base/push/$queue"
push '{"by":"--json"}' --json '{"by":"--json"}' "$base/push/$queue"
printf '{"by":\n"a file"}\n' >"$dir/file.json"
push '{"by":"a file"}' --data-binary "@$dir/file.json" "$base/push/$queue"
# -d @file removes line ends.
push '{"by":"a file"}' -d "@$dir/file.json" "$base/push/$queue"
# curl sends standard input in chunks.
printf '{"by":"-T -"}' >"$dir/piped.json"
push '{"by":"-T -"}' -X POST -T - "$base/push/$queue" <"$dir/piped.json"
grep -qi '^> transfer-encoding: chunked' "$dir/trace" || fail "-T - did not send chunks"
push '{"by":"--compressed"}' --compressed -d '{"by":"--compressed"}' "$base/push/$queue"
push '{"by":"--http1.0"}' --http1.0 -d '{"by":"--http1.0"}' "$base/push/$queue"
push '{"by":"chunks, expected"}' -H 'Expect: 100-continue' -H 'Transfer-Encoding: chunked' -d '{"by":"chunks, expected"}' \
    "$base/push/$queue"
push '{"by":"no Expect"}' -H 'Expect:' -d '{"by":"no Expect"}' "$base/push/$queue"
push '{"by":"the items"}' -d '{"items":[{"queue":"'"$queue"'","payload":{"by":"the items"}}],"bufferMs":10}' "$base/api/v1/push"

# For 5 MB, curl waits for 100 Continue.
{ printf '"'; head -c 5000000 /dev/zero | tr '\0' x; printf '"'; } >"$dir/large.json"
push 'large' --data-binary "@$dir/large.json" "$base/push/$queue"
grep -qi '^> expect: 100-continue' "$dir/trace" || fail "curl did not ask before 5 MB"
grep -q '^< HTTP/1.1 100 ' "$dir/trace" || fail "curl was not told to go on"
push 'large' -X POST -T "$dir/large.json" "$base/push/$queue"

# Two URLs of one command share a connection.
connections=$(curl --silent --show-error --max-time 60 -o "$dir/answer" -o "$dir/answer" -w '%{num_connects}\n' \
    -d '{"by":"two URLs"}' "$base/push/$queue" "$base/push/$queue" | paste -sd ' ')
[ "$connections" = "1 0" ] || fail "two URLs took $connections connections"
echo '{"by":"two URLs"}'
echo '{"by":"two URLs"}'

# Refused with a reason.
run 400 -d 'not JSON' "$base/push/$queue"
grep -q '"code":"malformed_json"' "$dir/answer" || fail "$(cat "$dir/answer")"
curl --silent --max-time 60 --fail -d 'not JSON' "$base/push/$queue" >"$dir/answer" 2>&1 && fail "--fail did not"
run 405 -T "$dir/file.json" "$base/push/$queue"
