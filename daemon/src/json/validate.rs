//! Checking one document.

use super::{JsonError, JsonErrorKind, MAX_DEPTH, scan::Scanner};

/// Checks that `bytes` is one JSON document that PostgreSQL's `jsonb` can hold and that keeps the limits [`MAX_DEPTH`] and
/// [`MAX_NUMBER_DIGITS`](super::MAX_NUMBER_DIGITS). White space may stand around the document. It takes one pass, without
/// recursion and allocation.
///
/// # Errors
/// The first fault, with its place.
pub fn validate(bytes: &[u8]) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(bytes);
    scanner.start()?;
    skip_value(&mut scanner)?;
    scanner.finish()
}

/// Steps over a value of any kind. The depth is counted from this value on.
#[inline]
pub(super) fn skip_value(scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
    match scanner.peek()? {
        b'{' | b'[' => skip_container(scanner),
        byte => scanner.scalar(byte),
    }
}

/// Steps over an object or array. Its opening brace or bracket is next.
fn skip_container(scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
    let mut open = OpenContainers::default();
    loop {
        let opened = match scanner.peek()? {
            byte @ (b'{' | b'[') => {
                let is_object = byte == b'{';
                if !open.push(is_object) {
                    return scanner.error(JsonErrorKind::TooDeep);
                }
                scanner.open(closing(is_object))?
            }
            byte => {
                scanner.scalar(byte)?;
                scanner.more(closing(open.top_is_object()))?
            }
        };
        if !opened && !close_containers(scanner, &mut open)? {
            return Ok(());
        }
        if open.top_is_object() {
            scanner.key()?;
        }
    }
}

/// Closes the innermost container, whose end was just read, and those that end with it. Returns whether an element or key
/// follows; if not, no container is open any more.
#[inline]
fn close_containers(scanner: &mut Scanner<'_>, open: &mut OpenContainers) -> Result<bool, JsonError> {
    loop {
        open.depth -= 1;
        if open.depth == 0 {
            return Ok(false);
        }
        if scanner.more(closing(open.top_is_object()))? {
            return Ok(true);
        }
    }
}

#[inline]
fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

const WORDS: usize = MAX_DEPTH / u64::BITS as usize;

/// The open containers, one bit for each: set for an object.
#[derive(Default)]
struct OpenContainers {
    depth: usize,
    objects: [u64; WORDS],
}

impl OpenContainers {
    /// Returns false if there is no room.
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

    /// Whether the innermost open container, which there must be, is an object.
    #[inline]
    fn top_is_object(&self) -> bool {
        let top = self.depth - 1;
        self.objects[top / 64] >> (top % 64) & 1 == 1
    }
}
