//! NDJSON: one document a line.

/// The lines of `body` that are not blank, with their numbers from 1. Blank lines count. Lines end with `\n` or `\r\n`, which the
/// slices do not have; the last line may end with the body. The lines are not checked: [`validate`](super::validate) each.
#[must_use]
pub fn lines(body: &[u8]) -> Lines<'_> {
    lines_from(body, 1)
}

/// As [`lines`], for a `body` that continues a stream: its first line has the number `first_line`.
#[must_use]
pub fn lines_from(body: &[u8], first_line: u64) -> Lines<'_> {
    Lines { rest: body, next_line: first_line }
}

/// Bytes at the start of `buffer` that are whole lines. A stream is split there: that part goes to [`lines_from`], and the rest
/// waits for more bytes.
#[must_use]
pub fn whole_lines_bytes(buffer: &[u8]) -> usize {
    memchr::memrchr(b'\n', buffer).map_or(0, |last| last + 1)
}

/// The iterator that [`lines`] makes.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
    next_line: u64,
}

impl Lines<'_> {
    /// The number that the next line, blank or not, will have.
    #[must_use]
    pub fn next_line(&self) -> u64 {
        self.next_line
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let (line, rest) = self.rest.split_at(end);
            self.rest = rest.get(1..).unwrap_or_default();
            let number = self.next_line;
            self.next_line += 1;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
                return Some((number, line));
            }
        }
        None
    }
}
