//! Frames and segments that verify although no log wrote them.

use forebay_wal::{
    frame::{FLAG_BATCH_START, FrameHeader, KIND_MESSAGE, SegmentSeed, encode_header, frame_len},
    limits::BLOCK_BYTES,
};

/// The header of a record that is a batch of its own.
pub fn header(number: u64, ordinal: u64, payload_len: usize, group_block: usize) -> FrameHeader {
    FrameHeader {
        number,
        ordinal,
        payload_len: payload_len as u32,
        kind: KIND_MESSAGE,
        flags: FLAG_BATCH_START,
        batch_remaining: 0,
        group_block: group_block as u32,
    }
}

/// A frame with its padding. Its checksums are right, whatever the header says.
pub fn frame(seed: SegmentSeed, header: &FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = encode_header(seed, header, &[payload]).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(frame_len(payload.len()), 0);
    bytes
}

/// A group of one frame, padded to the end of its block.
pub fn group(seed: SegmentSeed, header: &FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(seed, header, payload);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

/// A segment's first block, or the used part of it, with another format version and the matching checksum.
pub fn with_version(block: &[u8], version: u32) -> Vec<u8> {
    let mut block = block.to_vec();
    block[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&[&block[..12], &block[16..80]].concat());
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block
}
