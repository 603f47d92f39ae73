//! The frame: one record with its checksums, as bytes. Byte table and vectors: `docs/log-format.md`, which
//! `tests/format_page.rs` reads.
//!
//! A frame's header has a checksum of its own, so that a length is trusted only after it verified. Both checksums are
//! seeded with the place the frame belongs to ([`SegmentSeed`]), so that an old record in a recycled segment, or a record
//! copied from elsewhere, never passes for one of this segment.

use crate::limits::FRAME_ALIGN_BYTES;

/// Size of a frame's header in bytes.
pub const HEADER_BYTES: usize = 40;

/// Kind of a record that is one message.
pub const KIND_MESSAGE: u16 = 1;

/// Kind of a frame that is no record: it proves that all before it was durable. Its payload is empty, its ordinal the next
/// record's, and no record has a lower number than its own that is not before it.
pub const KIND_SEAL: u16 = 2;

/// Flag of the first record of a batch.
pub const FLAG_BATCH_START: u16 = 1;

/// What both checksums of every frame in one segment start from: CRC-32 of log id, lane and segment number.
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

/// What a frame says of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The record's log sequence number, unique in the log and rising within a lane.
    pub number: u64,
    /// Which record of its lane it is, counted from 0 without gaps: a missing ordinal is a missing record.
    pub ordinal: u64,
    /// Length of the payload in bytes.
    pub payload_len: u32,
    /// What the payload is; 0 is never written.
    pub kind: u16,
    /// [`FLAG_BATCH_START`]; other bits are 0 in this format.
    pub flags: u16,
    /// How many records of the same batch follow this one; the batch is whole once 0 was read.
    pub batch_remaining: u32,
    /// The block of the segment at which the group of this frame starts.
    pub group_block: u32,
}

impl FrameHeader {
    /// Whether the frame is a seal, and no record.
    #[must_use]
    pub fn is_seal(&self) -> bool {
        self.kind == KIND_SEAL
    }

    /// Whether this is the first record of its batch.
    #[must_use]
    pub fn starts_batch(&self) -> bool {
        self.flags & FLAG_BATCH_START != 0
    }
}

/// A frame that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: &'a [u8],
    /// Header and payload, rounded up to [`FRAME_ALIGN_BYTES`] as far as the bytes given reach: padding carries nothing.
    pub frame_len: usize,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes end before the frame does; `needed` bytes hold all of it. Only said of a header that verified, or of
    /// less than a header's bytes.
    Incomplete {
        /// Bytes of the whole frame (or of a header, as long as that is not there).
        needed: usize,
    },
    /// The header's checksum does not match, so nothing in it is known.
    Header,
    /// The header verified, the payload did not.
    Payload(FrameHeader),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Incomplete { needed } => write!(f, "the frame needs {needed} bytes"),
            Self::Header => f.write_str("the header's checksum does not match"),
            Self::Payload(header) => write!(f, "the payload's checksum does not match (record {})", header.number),
        }
    }
}

impl std::error::Error for FrameError {}

/// Length in the file of a frame with `payload_len` bytes of payload.
#[must_use]
pub const fn frame_len(payload_len: usize) -> usize {
    (HEADER_BYTES + payload_len).next_multiple_of(FRAME_ALIGN_BYTES)
}

/// The header bytes of a frame whose payload is the concatenation of `payload`; the caller writes the payload behind them.
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

/// The header at the start of `buf`, if its own checksum says it is one of this segment. Its payload is not looked at.
///
/// # Errors
/// [`FrameError::Incomplete`] for fewer than [`HEADER_BYTES`] bytes, [`FrameError::Header`] otherwise.
pub fn decode_header(seed: SegmentSeed, buf: &[u8]) -> Result<FrameHeader, FrameError> {
    let Some(bytes) = buf.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Incomplete { needed: HEADER_BYTES });
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
    // A checksum of 32 bits over zeros can be zero for an unlucky seed; a kind of 0 never is a record. Nothing follows the
    // greatest number or ordinal, so that no record has it.
    let possible = header.kind != 0 && header.number != u64::MAX && header.ordinal != u64::MAX;
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
        return Err(FrameError::Incomplete { needed: payload_end });
    };
    if seed.crc(payload) != u32_at(buf, 4) {
        return Err(FrameError::Payload(header));
    }
    let frame_len = frame_len(payload.len()).min(buf.len());
    Ok(Decoded { header, payload, frame_len })
}

// Callers hand in at least `HEADER_BYTES` bytes and offsets within them.
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
            let header = header(&payload, number.min(u64::MAX - 1));
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
