#!/usr/bin/env bash
# Plants one bug at a time in a copy of the log and checks that the tests on the simulated disk find it: `make mutate-log`.
# A bug that no case and no seed finds is a hole in the tests; the exit code is then 1.
# SEEDS is the number of seeds of each walk. ONLY selects the bugs whose name has that part.
set -euo pipefail
cd "$(dirname "$0")/../.."

SEEDS=${SEEDS:-3000}
copy=$(mktemp -d "${TMPDIR:-/tmp}/forebay-mutate.XXXXXX")
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=$copy/target

# name | file below wal/src | what stands there | what stands there instead (one line each)
mutations=$(cat <<'END'
a new segment's name is not synced | segments.rs | if let Err(source) = self.storage.sync_dir(&lane_dir) { | if let Err(source) = Ok::<(), io::Error>(()) {
a released segment's name is not synced | segments.rs | self.storage.sync_dir(&dir).map_err(LogError::io("sync", dir))?; | let _ = &dir;
a header's checksum is not looked at | frame.rs | if u32_at(bytes, 0) != seed.crc(&bytes[4..]) { | if bytes.len() == 1 && u32_at(bytes, 0) != seed.crc(&bytes[4..]) {
a payload's checksum is not looked at | frame.rs | if seed.crc(payload) != u32_at(buf, 4) { | if payload.len() == usize::MAX && seed.crc(payload) != u32_at(buf, 4) {
a short write passes for a whole one | group.rs | group.written_bytes += written_bytes; | group.written_bytes += written_bytes.max(length - group.written_bytes);
a failed sync passes for a success | group.rs | Err(source) => return Err(self.poison(&group, source)), | Err(_) => length - group.written_bytes,
a segment is released one too early | segments/lane_segments.rs | self.drained_below = self.drained_below.max(before); | self.drained_below = self.drained_below.max(before + 1);
a lane's last segment is released | segments/lane_segments.rs | self.drained_below.min(self.pinned_from.unwrap_or(last).min(last)) | self.drained_below.max(last.min(0))
the segment's number is not in the checksum | frame.rs | hasher.update(&segment.to_le_bytes()); | let _ = segment;
a torn tail is written over | recovery/mod.rs | (segment_start(found.segment + 1), Some(unfinished.block)) | (Position { segment: found.segment, offset: end.at }, None)
a batch that is not whole is delivered | scan/mod.rs | is_some_and(\|excluded\| excluded.contains(&header.ordinal)) | is_some_and(\|excluded\| excluded.contains(&u64::MAX))
what was not synced is trusted | recovery/segment_scan.rs | if self.options.sync { | if self.options.sync && length == 1 {
what cannot be read passes for a write that never finished | recovery/segment_scan.rs | let is_readable = scan.unreadable_blocks().iter().all(\|at\| *at < last_block * BLOCK_BYTES as u32); | let is_readable = last_block < u32::MAX;
what does not verify is believed at once | scan/mod.rs | _ => self.reread_at == Some(before.at), | _ => self.reread_at == Some(before.at) \|\| before.at < u32::MAX,
the end is believed at once | scan/mod.rs | => self.confirms_end(before)?, | => self.confirms_end(before)? \|\| before.at < u32::MAX,
padding is not looked at | scan/cursor.rs | if from >= to { | if from >= to \|\| to > 0 {
any ordinal ahead is believed | scan/cursor.rs | (next..=next + missing_max).contains(&header.ordinal) | next <= header.ordinal \|\| missing_max == u64::MAX
a first ordinal is believed whatever follows | scan/cursor.rs | if self.state.next_ordinal.is_some() { | if at > 0 \|\| self.state.next_ordinal.is_some() {
any number is believed | frame.rs | header.number < NUMBER_END | header.number != NUMBER_END
a seal passes for a record | scan/mod.rs | true => Item::Seal { header, at, end }, | true => Item::Record { header, at, end },
what is lost before a torn group is not told | recovery/progress.rs | if first.ordinal <= self.next_ordinal { | if first.ordinal <= self.next_ordinal \|\| first.ordinal > 0 {
the header of a cut segment's successor is read once | reader.rs | Ok(None) => read(), | Ok(None) if segment == u64::MAX => read(),
a damaged segment is used again | segments.rs | if state.is_damaged { | if state.is_damaged && state.length_bytes == 0 {
a file of another length is no damage | recovery/segment_scan.rs | header.segment_bytes != length_bytes | header.segment_bytes != length_bytes && length_bytes > 1 << 40
the end of a segment that was given up is not read | reader.rs | let end = self.segment_end(segment)?.map_or(open.length, \|end\| end.min(open.length)); | let end = open.length;
recovery passes over the end of a segment that was given up | recovery/segment_scan.rs | .min(end), | .min(end.max(u32::MAX)),
a segment that was given up is forgotten with the machine | segments.rs | segments.storage.sync_dir(&lane_dir).map_err(LogError::io("sync", lane_dir)) | Ok(drop(lane_dir))
behind a segment that was given up numbers start anew | segments.rs | if recovered.tail_header.is_some() \|\| is_behind_end { | if recovered.tail_header.is_some() \|\| is_behind_end && lane == u16::MAX {
END
)

# Runs the tests whose names hold $1; what takes too long counts as noticed.
simulate() {
  (cd "$copy/tree" && timeout 900 cargo test -q -p forebay-wal --test simulated "$1") >"$copy/log" 2>&1
}

passed=0 failed=0
while IFS= read -r line; do
  name=${line%% | *} rest=${line#* | }
  [[ $name == *"${ONLY:-}"* ]] || continue
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
  if simulate cases:: && FOREBAY_SEEDS=$SEEDS FOREBAY_STOP_EARLY=1 simulate cases_; then
    echo "MISSED: $name"; failed=$((failed + 1))
  else
    echo "noticed: $name ($(grep -oE 'FOREBAY_SEED=[0-9]+|^    cases::[a-z]+::[a-z]+_[0-9a-z]+' "$copy/log" | head -1 | tr -d ' '))"; passed=$((passed + 1))
  fi
done <<<"$mutations"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
