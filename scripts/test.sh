#!/usr/bin/env bash
# Runs all tests of the workspace, also after a failure, and lists the failed tests at the end. Arguments are passed to
# `cargo test`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test --workspace --locked --no-fail-fast "$@" 2>&1 </dev/null | tee "$log"
status=${PIPESTATUS[0]}

if [ "$status" -ne 0 ]; then
    echo
    echo "make test: failed"
    # Each test program prints two lists under "failures:" before its result. The second one contains the names.
    awk '/^failures:$/ { names = "" }
         /^    [^ ]/ { names = names $0 "\n" }
         /^test result: FAILED/ { printf "%s", names }' "$log"
    # Errors of the compiler, and test programs that were killed or aborted.
    grep -E '^error(\[|:)|^    `-p ' "$log" | sort -u || true
fi
exit "$status"
