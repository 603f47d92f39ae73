#!/usr/bin/env bash
# Connections that wait for a commit while PostgreSQL stands still: the daemon's memory for each, and how soon clients that hang
# up are gone from its figures. Prints a Markdown table on standard output, progress on standard error.
#
#   bench/waiting.sh
#   CONNECTIONS=1000,10000 bench/waiting.sh
#
# CONNECTIONS   connections that wait at once (10000); several numbers with commas between have a row each. Each needs a
#               descriptor here and one in the daemon
#
# The tests of daemon/tests/waiting.rs do the work with a release build. They fail where a connection takes more than 1,536 bytes.
# Everything is on loopback and bounded in time.
set -euo pipefail
cd "$(dirname "$0")/.."

CONNECTIONS=${CONNECTIONS:-10000}

# Runs the test $1 and prints its output.
run() {
  cargo test --release --locked -q -p forebay --test waiting -- --nocapture "$1"
}

echo '| connections | bytes each | gone after a hang-up |'
echo '|---|---|---|'
for connections in ${CONNECTIONS//,/ }; do
  echo "$connections connections" >&2
  memory=$(FOREBAY_TEST_WAITING=$connections run takes_little_memory)
  hang_up=$(run is_gone_soon)
  bytes=$(sed -n 's/^\([0-9]*\) bytes for each of .*/\1/p' <<<"$memory")
  gone=$(sed -n 's/^they were gone after //p' <<<"$hang_up")
  echo "| $connections | $bytes | $gone |"
done
