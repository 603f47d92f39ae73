//! A batch of records to append, and what comes of it.

/// One record to append. Its payload is `head` followed by `body`.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What the payload is. Must not be 0.
    pub kind: u16,
    /// First part of the payload.
    pub head: &'a [u8],
    /// Second part of the payload.
    pub body: &'a [u8],
}

/// The numbers and ordinals that a batch was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Number of the first record. The numbers of the others follow without gaps.
    pub first_number: u64,
    /// Ordinal behind the last record. The batch is durable once the lane's durable ordinal has reached it.
    pub end_ordinal: u64,
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// The batch never fits: a batch lies within one segment.
    #[error("the batch takes more than {max_bytes} bytes")]
    TooLarge {
        /// Bytes that a batch may take, including the headers of its frames.
        max_bytes: usize,
    },
    /// Too many bytes wait for the disk, or the next segment is not ready: try again after the next completion.
    #[error("too much waits for the disk, or the next segment is not ready")]
    Busy,
    /// A write failed earlier. The lane takes nothing more.
    #[error("an earlier write failed")]
    Poisoned,
}
