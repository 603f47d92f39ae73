//! A frame: one record with its checksums, as bytes. `docs/log-format.md` has the byte table and test vectors;
//! `tests/format_page.rs` holds this code to them.
//!
//! The header has a checksum of its own, so that a length is used only after it has verified. Both checksums are seeded
//! with the segment ([`SegmentSeed`]). An old record in a recycled segment never verifies, nor does a record that was copied
//! from elsewhere.

use crate::limits::{FRAME_ALIGN_BYTES, NUMBER_END};

/// Size of a frame's header in bytes.
pub const HEADER_BYTES: usize = 40;

/// The kind of a record that is a message.
pub const KIND_MESSAGE: u16 = 1;

/// The kind of a seal. A seal is no record: it proves that everything before it was durable. Its payload is empty. Its
/// ordinal is that of the next record, and every later record has at least its number.
pub const KIND_SEAL: u16 = 2;

/// The flag of a batch's first record.
pub const FLAG_BATCH_START: u16 = 1;

/// The seed of both checksums of every frame in one segment: the CRC-32 of log id, lane and segment number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSeed(u32);

impl SegmentSeed {
    /// The seed of segment `segment` in lane `lane` of the log `log_id`.
    #[must_use]
    pub fn new(log_id: [u8; 16], lane: u16, segment: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&log_id);
        hasher.update(&lane.to_le_bytes());
        hasher.update(&segment.to_le_bytes());
        Self(hasher.finalize())
    }

    fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// The fields of a frame's header, without its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The record's log sequence number. It is unique in the log and rises within a lane.
    pub number: u64,
    /// The record's index in its lane, from 0. Ordinals have no gaps: a missing ordinal is a missing record.
    pub ordinal: u64,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// What the payload is. 0 is never written.
    pub kind: u16,
    /// [`FLAG_BATCH_START`]. All other bits are 0 in this format.
    pub flags: u16,
    /// How many records of the same batch follow. A batch is whole once the record with 0 was read.
    pub batch_remaining: u32,
    /// The block at which the frame's group starts: its offset in the file, in units of 4096 bytes.
    pub group_block: u32,
}

impl FrameHeader {
    /// Whether the frame is a seal rather than a record.
    #[must_use]
    pub fn is_seal(&self) -> bool {
        self.kind == KIND_SEAL
    }

    /// Whether the record is the first of its batch.
    #[must_use]
    pub fn starts_batch(&self) -> bool {
        self.flags & FLAG_BATCH_START != 0
    }
}

/// A frame that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: &'a [u8],
    /// Length of header and payload in bytes, rounded up to [`FRAME_ALIGN_BYTES`], but at most the length of the input: a
    /// frame counts without its padding.
    pub frame_len: usize,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The input ends before the frame does. Either the header verifies, or the input is shorter than a header.
    #[error("the frame needs {needed_bytes} bytes")]
    Incomplete {
        /// Bytes of the header and, if the header verifies, of the payload.
        needed_bytes: usize,
    },
    /// The header does not verify, so nothing in it is known.
    #[error("the header's checksum does not match")]
    Header,
    /// The header verifies, and the payload does not.
    #[error("the payload's checksum does not match (record {number})", number = .0.number)]
    Payload(FrameHeader),
}

/// Length in bytes of a frame with `payload_len` bytes of payload, padding included.
#[must_use]
pub const fn frame_len(payload_len: usize) -> usize {
    (HEADER_BYTES + payload_len).next_multiple_of(FRAME_ALIGN_BYTES)
}

/// Encodes the header of a frame whose payload is the concatenation of `payload`. The caller writes the payload behind it.
#[must_use]
pub fn encode_header(seed: SegmentSeed, header: &FrameHeader, payload: &[&[u8]]) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[8..12].copy_from_slice(&header.payload_len.to_le_bytes());
    bytes[12..14].copy_from_slice(&header.kind.to_le_bytes());
    bytes[14..16].copy_from_slice(&header.flags.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.number.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.ordinal.to_le_bytes());
    bytes[32..36].copy_from_slice(&header.batch_remaining.to_le_bytes());
    bytes[36..40].copy_from_slice(&header.group_block.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new_with_initial(seed.0);
    for part in payload {
        hasher.update(part);
    }
    bytes[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    let header_crc = seed.crc(&bytes[4..]);
    bytes[0..4].copy_from_slice(&header_crc.to_le_bytes());
    bytes
}

/// Decodes the header at the start of `buf` and verifies it against the segment's seed. Does not read the payload.
///
/// # Errors
/// [`FrameError::Incomplete`] if `buf` has fewer than [`HEADER_BYTES`] bytes, else [`FrameError::Header`].
pub fn decode_header(seed: SegmentSeed, buf: &[u8]) -> Result<FrameHeader, FrameError> {
    let Some(bytes) = buf.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Incomplete { needed_bytes: HEADER_BYTES });
    };
    if u32_at(bytes, 0) != seed.crc(&bytes[4..]) {
        return Err(FrameError::Header);
    }
    let header = FrameHeader {
        payload_len: u32_at(bytes, 8),
        kind: u16_at(bytes, 12),
        flags: u16_at(bytes, 14),
        number: u64_at(bytes, 16),
        ordinal: u64_at(bytes, 24),
        batch_remaining: u32_at(bytes, 32),
        group_block: u32_at(bytes, 36),
    };
    // For an unlucky seed the checksum of zeros is zero: a kind of 0 is never a record. Recovery continues behind the highest
    // number it finds: a number beyond the limit would leave none for later records.
    let possible = header.kind != 0 && header.number < NUMBER_END && header.ordinal < NUMBER_END;
    if possible { Ok(header) } else { Err(FrameError::Header) }
}

/// The frame at the start of `buf`, verified.
///
/// # Errors
/// See [`FrameError`].
pub fn decode(seed: SegmentSeed, buf: &[u8]) -> Result<Decoded<'_>, FrameError> {
    let header = decode_header(seed, buf)?;
    let payload_end = HEADER_BYTES + header.payload_len as usize;
    let Some(payload) = buf.get(HEADER_BYTES..payload_end) else {
        return Err(FrameError::Incomplete { needed_bytes: payload_end });
    };
    if seed.crc(payload) != u32_at(buf, 4) {
        return Err(FrameError::Payload(header));
    }
    let frame_len = frame_len(payload.len()).min(buf.len());
    Ok(Decoded { header, payload, frame_len })
}

// Callers pass at least `HEADER_BYTES` bytes, and offsets within them.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(payload: &[u8], number: u64) -> FrameHeader {
        FrameHeader {
            number,
            ordinal: number / 2,
            payload_len: payload.len() as u32,
            kind: KIND_MESSAGE,
            flags: 0,
            batch_remaining: 3,
            group_block: 1,
        }
    }

    fn encode(seed: SegmentSeed, header: &FrameHeader, payload: &[u8]) -> Vec<u8> {
        let mut bytes = encode_header(seed, header, &[payload]).to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(frame_len(payload.len()), 0);
        bytes
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_as_it_was_written(payload: Vec<u8>, number: u64, lane: u16, segment: u64) {
            let seed = SegmentSeed::new([7; 16], lane, segment);
            let header = header(&payload, number % NUMBER_END);
            let bytes = encode(seed, &header, &payload);
            let decoded = decode(seed, &bytes).unwrap();
            prop_assert_eq!(decoded.header, header);
            prop_assert_eq!(decoded.payload, &payload[..]);
            prop_assert_eq!(decoded.frame_len, bytes.len());
        }

        #[test]
        fn case_13_14_15_any_flipped_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..200), bit: u32) {
            let seed = SegmentSeed::new([7; 16], 1, 2);
            let mut bytes = encode(seed, &header(&payload, 9), &payload);
            let bit = bit as usize % ((HEADER_BYTES + payload.len()) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(seed, &bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let seed = SegmentSeed::new([0; 16], 0, 1);
            if let Ok(decoded) = decode(seed, &bytes) {
                prop_assert!(decoded.frame_len <= bytes.len());
            }
        }
    }

    #[test]
    fn case_8_and_23_a_frame_of_another_log_lane_or_segment_does_not_verify() {
        let seed = SegmentSeed::new([7; 16], 1, 2);
        let bytes = encode(seed, &header(b"{}", 9), b"{}");
        for other in [SegmentSeed::new([8; 16], 1, 2), SegmentSeed::new([7; 16], 2, 2), SegmentSeed::new([7; 16], 1, 3)]
        {
            assert_eq!(decode(other, &bytes), Err(FrameError::Header));
        }
    }

    #[test]
    fn case_17_zeros_are_no_frame_whatever_the_segment() {
        for segment in 0..10_000 {
            let seed = SegmentSeed::new([7; 16], 0, segment);
            assert_eq!(decode(seed, &[0; 64]), Err(FrameError::Header));
        }
    }
}
