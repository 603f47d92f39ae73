#!/usr/bin/env bash
# Breaks the log on purpose, one way after the other, in a copy, and sees that the simulated disk notices: `make mutate-log`.
# A mutation that no seed fails for is a hole in the tests, and the exit code says so.
set -euo pipefail
cd "$(dirname "$0")/../.."

SEEDS=${SEEDS:-10000}
copy=$(mktemp -d "${TMPDIR:-/tmp}/forebay-mutate.XXXXXX")
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=$copy/target

# name | file below wal/src | what stands there | what stands there instead (one line each)
mutations=$(cat <<'END'
a new segment's name is not synced | segments.rs | self.storage.sync_dir(&lane_dir).map_err(LogError::io("sync", &lane_dir))?; | let _ = &lane_dir;
a released segment's name is not synced | segments.rs | self.storage.sync_dir(&dir).map_err(LogError::io("sync", dir))?; | let _ = &dir;
a header's checksum is not looked at | frame.rs | if u32_at(bytes, 0) != seed.crc(&bytes[4..]) { | if bytes.len() == 1 && u32_at(bytes, 0) != seed.crc(&bytes[4..]) {
a payload's checksum is not looked at | frame.rs | if seed.crc(payload) != u32_at(buf, 4) { | if payload.len() == usize::MAX && seed.crc(payload) != u32_at(buf, 4) {
a short write passes for a whole one | group.rs | group.written += written; | group.written += written.max(length - group.written);
a failed sync passes for a success | group.rs | Err(source) => return Err(self.poison(&group, source)), | Err(_) => length - group.written,
fdatasync is left out | group.rs | if self.sync == SyncMethod::Fdatasync { | if self.sync == SyncMethod::Fdatasync && length == 0 {
a segment is released one too early | segments.rs | self.first(lane).filter(\|segment\| *segment < before) | self.first(lane).filter(\|segment\| *segment <= before)
the segment's number is not in the checksum | frame.rs | hasher.update(&segment.to_le_bytes()); | let _ = segment;
a torn tail is written over | recovery.rs | (segment_start(found.segment + 1), Some(unfinished.block)) | (Position { segment: found.segment, offset: end.at }, None)
a batch that is not whole is delivered | scan.rs | if self.excluded.contains(&header.ordinal) { | if header.ordinal == u64::MAX && self.excluded.contains(&header.ordinal) {
what was not synced is trusted | recovery.rs | if self.options.sync { | if self.options.sync && length == 1 {
END
)

passed=0 failed=0
while IFS= read -r line; do
  name=${line%% | *} rest=${line#* | }
  file=${rest%% | *} rest=${rest#* | }
  from=${rest%% | *} to=${rest#* | }
  from=${from//\\|/|} to=${to//\\|/|}
  rm -rf "$copy/tree"
  mkdir -p "$copy/tree"
  git ls-files -z --cached --deduplicate | while IFS= read -r -d '' path; do
    [ -e "$path" ] && cp --parents -t "$copy/tree" "$path"
  done || true
  FROM=$from TO=$to perl -0pi -e 'BEGIN { $f = $ENV{FROM}; $t = $ENV{TO} } $n = s/\Q$f\E/$t/; END { exit($n ? 0 : 1) }' "$copy/tree/wal/src/$file" ||
    { echo "BROKEN: $name: wal/src/$file has no: $from"; failed=$((failed + 1)); continue; }
  if ! (cd "$copy/tree" && cargo test -q -p forebay-wal --test simulated --no-run) >"$copy/log" 2>&1; then
    echo "BROKEN: $name: it does not build"; tail -5 "$copy/log"; failed=$((failed + 1)); continue
  fi
  if (cd "$copy/tree" && FOREBAY_SEEDS=$SEEDS FOREBAY_STOP_EARLY=1 timeout 900 cargo test -q -p forebay-wal --test simulated) >"$copy/log" 2>&1; then
    echo "MISSED: $name"; failed=$((failed + 1))
  else
    echo "noticed: $name ($(grep -m1 -o 'FOREBAY_SEED=[0-9]*' "$copy/log" || true))"; passed=$((passed + 1))
  fi
done <<<"$mutations"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
