//! What recovery and verification find.

use crate::position::Position;

/// Something an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Records that were durable are gone.
    Lost {
        /// How many.
        records: u64,
        /// Ordinal of the first.
        first_ordinal: u64,
        /// Number of the last record before them, if one is known.
        after_number: Option<u64>,
        /// A number that all of them are below: that of the next record, or of the seal, if it is known.
        before_number: Option<u64>,
        /// Where the next record stands.
        before: Position,
    },
    /// A frame's payload does not verify.
    BadPayload {
        /// Where the frame starts.
        at: Position,
        /// The record's number, which its header vouches for.
        number: u64,
    },
    /// Bytes that are no frame, with records behind them.
    Unreadable {
        /// The first.
        at: Position,
        /// Where reading goes on.
        resumed_at: Position,
    },
    /// Padding is not zero: no record is lost by it, but the disk is not to be trusted.
    DirtyPadding {
        /// The first byte.
        at: Position,
    },
    /// The disk cannot read a block; it was taken for zeros.
    ReadFailed {
        /// Its first byte.
        at: Position,
    },
    /// The last write did not finish; no answer was given for what it held.
    UnfinishedWrite {
        /// Where what does not verify starts, as far as is known.
        at: Position,
    },
    /// A segment's header block does not verify, or is not zero where it carries nothing; its records are read all the same.
    HeaderDamaged {
        /// The segment.
        segment: u64,
    },
    /// A segment's file is not as long as its header says.
    WrongLength {
        /// The segment.
        segment: u64,
        /// Its length in bytes.
        length_bytes: u64,
    },
    /// A segment's header belongs to another place: a copy, or exchanged names.
    Misplaced {
        /// The segment by its name.
        segment: u64,
    },
    /// A file between two others is gone.
    SegmentMissing {
        /// Its number.
        segment: u64,
    },
    /// A name in the lane's directory that the log did not make.
    Stranger {
        /// The name.
        name: String,
    },
}

impl Finding {
    /// Whether answered records may be lost, rather than a write that never was answered.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::UnfinishedWrite { .. } | Self::Stranger { .. })
    }

    /// The segment it is about; `None` where it is about none.
    #[must_use]
    pub fn segment(&self) -> Option<u64> {
        match self {
            Self::Lost { before: at, .. }
            | Self::BadPayload { at, .. }
            | Self::Unreadable { at, .. }
            | Self::DirtyPadding { at }
            | Self::ReadFailed { at }
            | Self::UnfinishedWrite { at } => Some(at.segment),
            Self::HeaderDamaged { segment }
            | Self::WrongLength { segment, .. }
            | Self::Misplaced { segment }
            | Self::SegmentMissing { segment } => Some(*segment),
            Self::Stranger { .. } => None,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost { records, first_ordinal, after_number, before_number, before } => {
                let last_ordinal = first_ordinal + records - 1;
                write!(f, "{records} records lost (ordinals {first_ordinal} to {last_ordinal}")?;
                if let Some(number) = after_number {
                    write!(f, ", after number {number}")?;
                }
                if let Some(number) = before_number {
                    write!(f, ", before number {number}")?;
                }
                write!(f, ") before {before}")
            }
            Self::BadPayload { at, number } => write!(f, "record {number} at {at}: its payload does not verify"),
            Self::Unreadable { at, resumed_at } => write!(f, "bytes from {at} to {resumed_at} are no frames"),
            Self::DirtyPadding { at } => write!(f, "the padding at {at} is not zero"),
            Self::ReadFailed { at } => write!(f, "the block at {at} cannot be read"),
            Self::UnfinishedWrite { at } => write!(f, "the last write did not finish: {at}"),
            Self::HeaderDamaged { segment } => {
                write!(f, "segment {segment}: its header (its first block) does not verify")
            }
            Self::WrongLength { segment, length_bytes } => {
                write!(f, "segment {segment}: its length is {length_bytes} bytes, which is not what its header says")
            }
            Self::Misplaced { segment } => write!(f, "segment {segment}: its header belongs to another segment"),
            Self::SegmentMissing { segment } => write!(f, "segment {segment} is missing"),
            Self::Stranger { name } => write!(f, "{name:?} is no file of the log"),
        }
    }
}
