//! A segment's header block, and the names of files and directories. `docs/log-format.md` has the byte table.

use crate::{
    frame::{SegmentSeed, u32_at, u64_at},
    limits::{BLOCK_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES},
};

/// The first bytes of every segment.
pub const MAGIC: [u8; 8] = *b"FOREBAY\n";

/// The format version that this build writes, and the highest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of the header block that hold fields. The rest of the block is zero.
const HEADER_USED_BYTES: usize = 80;

/// Offset of the header's checksum in bytes.
const CRC_AT: usize = 12;

/// The fields of a segment's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The id of the log.
    pub log_id: [u8; 16],
    /// The lane.
    pub lane: u16,
    /// The segment's number in the lane, from 1.
    pub segment: u64,
    /// Size of the file in bytes.
    pub segment_bytes: u64,
    /// Value of the sequence counter when the header was made. Numbers continue here if no record is left.
    pub base_number: u64,
    /// The lowest ordinal that a record of this segment can have.
    pub base_ordinal: u64,
    /// Block at which the unfinished group of the *previous* segment starts; 0 if it has none. Records of that group
    /// count if they verify and their batch is whole.
    pub previous_unfinished_block: u32,
    /// Whether the file was zero behind the header when the header was made. A recycled file holds old records, which do
    /// not verify.
    pub zeroed: bool,
}

/// Why a segment's first block is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The magic bytes or the checksum do not match, or a field is out of its range.
    #[error("the segment's header does not verify")]
    Invalid,
    /// A later release wrote the header.
    #[error("the segment has format version {version}, written by a newer release")]
    FormatTooNew {
        /// The version in the header.
        version: u32,
    },
}

impl SegmentHeader {
    /// Encodes the header as the segment's first block.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut block = [0; SEGMENT_HEADER_BYTES];
        block[0..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[16..32].copy_from_slice(&self.log_id);
        block[32..36].copy_from_slice(&u32::from(self.lane).to_le_bytes());
        block[36..40].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        block[40..48].copy_from_slice(&self.segment.to_le_bytes());
        block[48..52].copy_from_slice(&(self.segment_bytes as u32).to_le_bytes());
        block[52..56].copy_from_slice(&self.previous_unfinished_block.to_le_bytes());
        block[56..64].copy_from_slice(&self.base_number.to_le_bytes());
        block[64..72].copy_from_slice(&self.base_ordinal.to_le_bytes());
        block[72..76].copy_from_slice(&u32::from(self.zeroed).to_le_bytes());
        let crc = header_crc(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Decodes a header from a segment's first bytes.
    ///
    /// # Errors
    /// See [`HeaderError`]. The checksum is verified before the version is read, so a damaged block never passes for a
    /// later format.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        if block.len() < HEADER_USED_BYTES || block[0..8] != MAGIC || u32_at(block, CRC_AT) != header_crc(block) {
            return Err(HeaderError::Invalid);
        }
        let version = u32_at(block, 8);
        if version == 0 {
            return Err(HeaderError::Invalid);
        }
        if version > FORMAT_VERSION {
            return Err(HeaderError::FormatTooNew { version });
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&block[16..32]);
        let header = Self {
            log_id,
            lane: u16::try_from(u32_at(block, 32)).map_err(|_| HeaderError::Invalid)?,
            segment: u64_at(block, 40),
            segment_bytes: u64::from(u32_at(block, 48)),
            previous_unfinished_block: u32_at(block, 52),
            base_number: u64_at(block, 56),
            base_ordinal: u64_at(block, 64),
            zeroed: u32_at(block, 72) != 0,
        };
        let sizes_ok = u32_at(block, 36) as usize == BLOCK_BYTES
            && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&header.segment_bytes);
        if sizes_ok { Ok(header) } else { Err(HeaderError::Invalid) }
    }

    /// Whether the unused bytes of the block are zero, as they were written.
    #[must_use]
    pub fn is_rest_zero(block: &[u8]) -> bool {
        block.iter().skip(HEADER_USED_BYTES).all(|byte| *byte == 0)
    }

    /// The seed of the checksums of the segment's frames.
    #[must_use]
    pub fn seed(&self) -> SegmentSeed {
        SegmentSeed::new(self.log_id, self.lane, self.segment)
    }
}

fn header_crc(block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..CRC_AT]);
    hasher.update(&block[CRC_AT + 4..HEADER_USED_BYTES]);
    hasher.finalize()
}

/// The name of a segment's file in its lane's directory.
#[must_use]
pub fn file_name(segment: u64) -> String {
    format!("{segment:010}.seg")
}

/// The segment that [`file_name`] gives `name`; `None` for any other name.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".seg")?.parse().ok()?;
    (number > 0 && file_name(number) == name).then_some(number)
}

/// The name of the file that says where a segment ends that the lane gave up. It lies beside the segment.
///
/// The file's length in bytes is the *number of the block* at which the segment ends. It holds nothing, so that it takes
/// no room: it is made when there is none.
#[must_use]
pub fn end_name(segment: u64) -> String {
    format!("{segment:010}.end")
}

/// The segment that [`end_name`] gives `name`; `None` for any other name.
#[must_use]
pub fn parse_end_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".end")?.parse().ok()?;
    (number > 0 && end_name(number) == name).then_some(number)
}

/// The name of a lane's directory in the log's directory.
#[must_use]
pub fn lane_dir_name(lane: u16) -> String {
    format!("lane-{lane:02}")
}

/// The lane that [`lane_dir_name`] gives `name`; `None` for any other name.
#[must_use]
pub fn parse_lane_dir_name(name: &str) -> Option<u16> {
    let lane = name.strip_prefix("lane-")?.parse().ok()?;
    (lane_dir_name(lane) == name).then_some(lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            log_id: [3; 16],
            lane: 5,
            segment: 9,
            segment_bytes: 4 << 20,
            base_number: 77,
            base_ordinal: 66,
            previous_unfinished_block: 12,
            zeroed: true,
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn case_16_any_flipped_bit_of_a_header_is_noticed() {
        let block = header().encode();
        for bit in 0..HEADER_USED_BYTES * 8 {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), Err(HeaderError::Invalid), "bit {bit}");
        }
    }

    #[test]
    fn case_37_a_newer_format_is_refused_by_its_version() {
        let mut block = header().encode();
        block[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let crc = header_crc(&block);
        block[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderError::FormatTooNew { version: 2 }));
    }

    #[test]
    fn case_22_only_names_that_were_made_here_are_taken_for_segments() {
        assert_eq!(parse_file_name(&file_name(7)), Some(7));
        for name in ["7.seg", "0000000000.seg", "0000000007.seg.tmp", "+000000007.seg", "x"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
        assert_eq!(parse_end_name(&end_name(7)), Some(7));
        for name in ["7.end", "0000000000.end", "0000000007.seg"] {
            assert_eq!(parse_end_name(name), None, "{name}");
        }
        assert_eq!(parse_lane_dir_name("lane-07"), Some(7));
        assert_eq!(parse_lane_dir_name("lane-7"), None);
        assert_eq!(parse_lane_dir_name("lane-123"), Some(123));
    }
}
