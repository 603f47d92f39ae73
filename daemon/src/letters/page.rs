//! Pages of letters: how much one has, and how its letters are put back in batches.

use super::{DeadLetter, id::LetterId, statements::NAMES_BYTES};

/// Letters of a page at most.
pub const PAGE_MAX: u32 = 1000;

/// Bytes at which a page ends, unless its first letter has more. Payloads do not count, since they are not in it.
pub const PAGE_BYTES_MAX: usize = 8 << 20;

/// How much a page has at most.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Letters.
    pub letters: u32,
    /// Bytes at which it ends.
    pub bytes: usize,
}

impl PageLimit {
    /// So many letters, and [`PAGE_BYTES_MAX`].
    #[must_use]
    pub const fn letters(letters: u32) -> Self {
        Self { letters, bytes: PAGE_BYTES_MAX }
    }
}

/// Letters that are put back with one pipeline at most. Each is a commit of its own, and others who share the connection wait
/// for all of them: a hundred milliseconds on a slow disk.
const BATCH_LETTERS: usize = 16;

/// Bytes of their payloads at most, unless one letter has more: what they occupy while they are on their way.
const BATCH_BYTES: usize = 4 << 20;

/// A letter of a list, without its payload.
pub struct Listed {
    /// Its id.
    pub id: LetterId,
    /// The letter.
    pub letter: DeadLetter<()>,
    /// The size of its payload in bytes.
    pub payload_bytes: usize,
}

impl Listed {
    /// Bytes that it takes, about: names have 255 at most.
    #[must_use]
    pub(super) fn memory_bytes(&self) -> usize {
        NAMES_BYTES + self.letter.error.len()
    }
}

/// Letters, and why those of the table may be missing among them.
pub struct Page {
    /// The letters, by id.
    pub letters: Vec<Listed>,
    /// The last one's id, if the page is full: further letters may follow behind it.
    pub next: Option<LetterId>,
    /// Bytes that it would have, about, if they were not limited; `usize::MAX` where that is not known.
    pub whole_bytes: usize,
    /// What PostgreSQL says instead of showing its table.
    pub table_refused: Option<String>,
}

/// Cuts letters into batches that may be put back together.
pub fn batches(letters: &[Listed]) -> impl Iterator<Item = &[Listed]> {
    let mut rest = letters;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |listed: &&Listed| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(listed.payload_bytes.max(1));
            is_first || bytes <= BATCH_BYTES
        };
        let count = rest.iter().take(BATCH_LETTERS).take_while(fits).count();
        let (batch, others) = rest.split_at(count);
        rest = others;
        (count > 0).then_some(batch)
    })
}
