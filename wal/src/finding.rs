//! What recovery and verification report about a lane's files.

use crate::position::Position;

/// A fact about a lane's files that the operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Durable records are gone.
    Lost {
        /// How many records are gone.
        records: u64,
        /// Ordinal of the first of them.
        first_ordinal: u64,
        /// Number of the last record before them, if it is known.
        after_number: Option<u64>,
        /// Number of the next record or seal, if it is known. All lost records have a lower number.
        before_number: Option<u64>,
        /// Position of the next record.
        before: Position,
    },
    /// A frame's payload does not verify.
    BadPayload {
        /// Start of the frame.
        at: Position,
        /// The record's number, from the header, which does verify.
        number: u64,
    },
    /// Bytes are no frame, and records follow them.
    CorruptBytes {
        /// Position of the first such byte.
        at: Position,
        /// Position of the next frame.
        resumed_at: Position,
    },
    /// Padding is not zero. No record is lost by it, but the disk cannot be trusted.
    DirtyPadding {
        /// Position of the first byte that is not zero.
        at: Position,
    },
    /// The disk cannot read a block. It counts as zeros.
    ReadFailed {
        /// Start of the block.
        at: Position,
    },
    /// The last write did not finish. Nobody was answered for its records.
    UnfinishedWrite {
        /// Start of the bytes that do not verify, as far as is known.
        at: Position,
    },
    /// The first block of a segment does not verify, or its unused bytes are not zero. The segment's records are read all
    /// the same.
    HeaderDamaged {
        /// The segment.
        segment: u64,
    },
    /// The file of a segment has another length than its header says.
    WrongLength {
        /// The segment.
        segment: u64,
        /// The file's length in bytes.
        length_bytes: u64,
    },
    /// The header of a segment belongs to another segment: the file is a copy, or two names were exchanged.
    Misplaced {
        /// The segment's number, by its file name.
        segment: u64,
    },
    /// A segment between two others is missing.
    SegmentMissing {
        /// The segment.
        segment: u64,
    },
    /// The lane's directory holds a file that the log did not make.
    ForeignFile {
        /// The file's name.
        name: String,
    },
}

impl Finding {
    /// Whether answered records may be lost. An unfinished write and a foreign file cost none.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::UnfinishedWrite { .. } | Self::ForeignFile { .. })
    }

    /// The segment that the finding is about, if it is about one.
    #[must_use]
    pub fn segment(&self) -> Option<u64> {
        match self {
            Self::Lost { before: at, .. }
            | Self::BadPayload { at, .. }
            | Self::CorruptBytes { at, .. }
            | Self::DirtyPadding { at }
            | Self::ReadFailed { at }
            | Self::UnfinishedWrite { at } => Some(at.segment),
            Self::HeaderDamaged { segment }
            | Self::WrongLength { segment, .. }
            | Self::Misplaced { segment }
            | Self::SegmentMissing { segment } => Some(*segment),
            Self::ForeignFile { .. } => None,
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
            Self::CorruptBytes { at, resumed_at } => write!(f, "the bytes from {at} to {resumed_at} are no frames"),
            Self::DirtyPadding { at } => write!(f, "the padding at {at} is not zero"),
            Self::ReadFailed { at } => write!(f, "the block at {at} cannot be read"),
            Self::UnfinishedWrite { at } => write!(f, "the last write did not finish: {at}"),
            Self::HeaderDamaged { segment } => {
                write!(f, "segment {segment}: its header (its first block) does not verify")
            }
            Self::WrongLength { segment, length_bytes } => {
                write!(f, "segment {segment}: its file has {length_bytes} bytes, which is not the size in its header")
            }
            Self::Misplaced { segment } => write!(f, "segment {segment}: its header belongs to another segment"),
            Self::SegmentMissing { segment } => write!(f, "segment {segment} is missing"),
            Self::ForeignFile { name } => write!(f, "{name:?} is not a file of the log"),
        }
    }
}
