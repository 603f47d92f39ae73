//! One document, checked.

use super::scan::Scanner;
use super::{JsonError, JsonErrorKind, MAX_DEPTH};

/// Checks that `bytes` is one JSON document, white space around it allowed, that PostgreSQL's `jsonb` can hold and that
/// keeps this edge's limits ([`MAX_DEPTH`], [`MAX_NUMBER_DIGITS`](super::MAX_NUMBER_DIGITS)). One pass, no recursion,
/// no allocation.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn validate(bytes: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(bytes);
    scanner.start()?;
    scanner.skip_value()?;
    scanner.finish()
}

impl Scanner<'_> {
    /// Steps over a value of any kind. The depth is counted from this value on.
    #[inline]
    pub(super) fn skip_value(&mut self) -> Result<(), JsonError> {
        match self.peek()? {
            b'{' | b'[' => self.skip_container(),
            byte => self.scalar(byte),
        }
    }

    /// Steps over an object or array, whose opening brace or bracket is next.
    fn skip_container(&mut self) -> Result<(), JsonError> {
        let mut open = OpenContainers::default();
        loop {
            let opened = match self.peek()? {
                byte @ (b'{' | b'[') => {
                    let is_object = byte == b'{';
                    if !open.push(is_object) {
                        return self.error(JsonErrorKind::TooDeep);
                    }
                    self.open(closing(is_object))?
                }
                byte => {
                    self.scalar(byte)?;
                    self.more(closing(open.top_is_object()))?
                }
            };
            if !opened && !self.close_containers(&mut open)? {
                return Ok(());
            }
            if open.top_is_object() {
                self.key()?;
            }
        }
    }

    /// The innermost container was closed; closes those that end with it. True when an element or key follows, false
    /// when none is open any more.
    #[inline]
    fn close_containers(&mut self, open: &mut OpenContainers) -> Result<bool, JsonError> {
        loop {
            open.depth -= 1;
            if open.depth == 0 {
                return Ok(false);
            }
            if self.more(closing(open.top_is_object()))? {
                return Ok(true);
            }
        }
    }
}

#[inline]
fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

const WORDS: usize = MAX_DEPTH / u64::BITS as usize;

/// The containers that are open, one bit each: set for an object.
#[derive(Default)]
struct OpenContainers {
    depth: usize,
    objects: [u64; WORDS],
}

impl OpenContainers {
    /// False when there is no room.
    #[inline]
    fn push(&mut self, is_object: bool) -> bool {
        let Some(word) = self.objects.get_mut(self.depth / 64) else {
            return false;
        };
        let bit = 1 << (self.depth % 64);
        *word = if is_object { *word | bit } else { *word & !bit };
        self.depth += 1;
        true
    }

    /// Only asked while one is open.
    #[inline]
    fn top_is_object(&self) -> bool {
        let top = self.depth - 1;
        self.objects[top / 64] >> (top % 64) & 1 == 1
    }
}
