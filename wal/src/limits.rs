//! Every limit of the log, with its reason. The compiler checks how they relate.

use crate::frame::HEADER_BYTES;

/// The unit of writes, in bytes: every group starts on a block. It is the largest logical block of the disks we have met, so
/// it satisfies the alignment that `O_DIRECT` wants of addresses, offsets and lengths.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes at the start of a segment that hold its header. The first group starts behind them.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;

/// Frames start at multiples of this many bytes, so that the 64-bit fields of a header are aligned in the file.
pub const FRAME_ALIGN_BYTES: usize = 8;

/// The smallest size of a segment in bytes that the format allows. It is small, so that simulated disks roll over often.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The largest size of a segment in bytes. Offsets fit in 32 bits, and block numbers fit with room to spare.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The default size of a segment in bytes. Zero-filling it takes tens of milliseconds, recycling it is worth a directory
/// sync, and the largest push fits in it.
pub const SEGMENT_BYTES_DEFAULT: u64 = 32 << 20;

/// The largest number of lanes: one for each core thread. It also bounds the size of a checkpoint row.
pub const LANES_MAX: u16 = 1024;

/// A group takes no further batch beyond this size in bytes. Its write then takes a few milliseconds at most, and its first
/// record does not wait for its thousandth.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// Bytes of one lane that may wait in memory for the disk. Beyond them [`append`](crate::lane::Lane::append) says *busy*.
pub const QUEUED_BYTES_MAX: usize = 32 << 20;

/// Size of one chunk of a group's buffer in bytes. A group of 128 small messages fits in one.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Chunks that a lane keeps for its next groups; it frees the others.
pub const POOLED_CHUNKS_MAX: usize = 16;

/// Segments that a lane has ready ahead of its current one, if the quota allows. A lane that has not filled a segment yet
/// has only one: otherwise a machine of many cores would write gigabytes of zeros at its first start.
pub const SEGMENTS_AHEAD: usize = 2;

/// Bytes that a disk must take before a lane goes on that found no room on it: some dozens of usual groups, so that the lane
/// does not give up the next segment at once.
pub const ROOM_PROBE_BYTES: usize = 1 << 20;

/// Free segments that wait to be recycled. Further ones are deleted, for the disk may have other users.
pub const SEGMENTS_FREE_MAX: usize = 16;

/// Bytes of a segment that a scan holds, unless a record is larger. They fit in the cache of a core.
pub const WINDOW_BYTES: usize = 256 << 10;

/// Bytes of one read of a segment. One such read at a time keeps a fast disk busy.
pub const READ_AHEAD_BYTES: usize = 1 << 20;
/// Reads of that size that a reader starts ahead: it scans one while the disk fetches the next.
pub const READ_AHEAD_DEPTH: usize = 2;

/// Bytes that the tail caches of all lanes hold together: two rounds of the drain, so that a drain that keeps up reads
/// nothing from the disk.
pub const TAIL_CACHE_BYTES: usize = 16 << 20;

/// Blocks of one segment that the disk may fail to read. Beyond them the whole disk counts as failed: nothing is concluded
/// from the segment, and none of its records counts as lost.
pub const UNREADABLE_BLOCKS_MAX: usize = 64;

/// Numbers and ordinals are below this. It is half of what PostgreSQL's `bigint` holds, and lasts more than a hundred
/// thousand years at a million records a second.
pub const NUMBER_END: u64 = 1 << 62;

/// The largest payload of one record in bytes, in segments of `segment_bytes`.
#[must_use]
pub const fn record_bytes_max(segment_bytes: u64) -> usize {
    segment_bytes as usize - SEGMENT_HEADER_BYTES - HEADER_BYTES
}

const _: () = {
    assert!(BLOCK_BYTES.is_power_of_two());
    assert!(BLOCK_BYTES.is_multiple_of(FRAME_ALIGN_BYTES));
    assert!(HEADER_BYTES.is_multiple_of(FRAME_ALIGN_BYTES));
    assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(GROUP_BYTES_MAX.is_multiple_of(CHUNK_BYTES));
    assert!(GROUP_BYTES_MAX < QUEUED_BYTES_MAX);
    assert!(TAIL_CACHE_BYTES / LANES_MAX as usize >= BLOCK_BYTES);
    assert!(READ_AHEAD_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(WINDOW_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(SEGMENT_BYTES_MIN as usize >= 2 * BLOCK_BYTES);
    assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
};
