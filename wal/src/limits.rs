//! Every limit of the log in one place, with its reason; relations between them are checked when this file compiles.

use crate::frame::HEADER_BYTES;

/// The unit of every write and of every group's start, in bytes: the largest logical block of the disks we meet, hence
/// what `O_DIRECT` needs for addresses, offsets and lengths alike.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes at the start of a segment that hold its header; a group never lies in them.
pub const SEGMENT_HEADER_BYTES: usize = BLOCK_BYTES;

/// Frames start at multiples of this, so that a header's 64-bit fields are aligned in the file.
pub const FRAME_ALIGN_BYTES: usize = 8;

/// Smallest size of a segment in bytes that the format allows: small enough for simulated disks that roll over often.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// Largest size of a segment in bytes: an offset, and a block's number with room, fit in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Default size of a segment in bytes: zero-filling one takes tens of milliseconds, recycling one pays for a directory
/// sync, and the largest push fits.
pub const SEGMENT_BYTES_DEFAULT: u64 = 32 << 20;

/// Largest number of lanes: one a core thread, and a bound on what a checkpoint row holds.
pub const LANES_MAX: u16 = 1024;

/// A group is closed to further records at this size in bytes: one write then lasts a few milliseconds at most, and the
/// first of its records does not wait for the last of a thousand.
pub const GROUP_BYTES_MAX: usize = 4 << 20;

/// Bytes that may wait in memory for the disk in one lane before [`append`](crate::lane::Lane::append) says *busy*.
pub const QUEUED_BYTES_MAX: usize = 32 << 20;

/// Size of one piece of a group's buffer in bytes; a group of 128 small messages fits in one.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Chunks a lane keeps for the next groups instead of giving them back.
pub const CHUNKS_KEPT: usize = 16;

/// Segments a lane that has filled one has ready ahead of the one it writes to, where the quota allows; a lane that has
/// not yet, one: a machine of many cores would otherwise write gigabytes of zeros at its first start.
pub const SEGMENTS_AHEAD: usize = 2;

/// Free segments kept for recycling; more are deleted, for the disk may have other users.
pub const SEGMENTS_FREE_MAX: usize = 16;

/// Bytes of a segment that a scan holds, unless a record is larger: what fits in a core's own cache.
pub const WINDOW_BYTES: usize = 256 << 10;

/// Bytes that one read of a segment asks the disk for: so many that one such read at a time keeps a fast disk busy.
pub const READ_PIECE_BYTES: usize = 1 << 20;
/// Such pieces: one is looked at while the next is read.
pub const READ_AHEAD_PIECES: usize = 2;

/// Bytes that all lanes together keep in memory of what they wrote last: two of the drain's rounds, so that one that keeps up
/// reads nothing from the disk. Kept only while somebody reads as closely behind.
pub const RECENT_BYTES: usize = 16 << 20;

/// Blocks of one segment that the disk may fail to read before it is the disk that failed: then nothing is concluded from
/// it, and nothing is given up for lost.
pub const HOLES_MAX: usize = 64;

/// Numbers and ordinals are below this: half of what PostgreSQL's `bigint` holds, and at a million records a second more than
/// a hundred thousand years.
pub const NUMBER_END: u64 = 1 << 62;

/// Largest payload of one record in bytes in segments of `segment_bytes`.
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
    assert!(RECENT_BYTES / LANES_MAX as usize >= BLOCK_BYTES);
    assert!(READ_PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(WINDOW_BYTES.is_multiple_of(BLOCK_BYTES));
    assert!(SEGMENT_BYTES_MIN as usize >= 2 * BLOCK_BYTES);
    assert!(SEGMENT_BYTES_MAX <= u32::MAX as u64);
};
