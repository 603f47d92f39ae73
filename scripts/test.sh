#!/usr/bin/env bash
# Runs every test of the workspace, also after a failure, and names those that failed at the end.
# Arguments go to `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --workspace --locked --no-fail-fast "$@" 2>&1 </dev/null | tee "$log"
status=${PIPESTATUS[0]}

if [ "$status" -ne 0 ]; then
    echo
    echo "make test: failed"
    # The names that each test program lists before its result, in the last of its two lists.
    awk '/^failures:$/ { names = "" }
         /^    [^ ]/ { names = names $0 "\n" }
         /^test result: FAILED/ { printf "%s", names }' "$log"
    # What did not build, and test programs that did not end by themselves.
    grep -E '^error(\[|:)|^    `-p ' "$log" | sort -u || true
fi
exit "$status"
