//! The `Date` of replies (RFC 9110 section 6.6.1), written once a second and not once a request.

use std::{
    cell::Cell,
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

const NAME: &[u8] = b"Date: ";
const END: &[u8] = b"\r\n";

/// Bytes of `Sun, 06 Nov 1994 08:49:37 GMT`.
const DATE_BYTES: usize = 29;

/// Bytes of the whole line.
pub const DATE_LINE_BYTES: usize = NAME.len() + DATE_BYTES + END.len();

/// The header line of replies that are written now.
pub struct DateLine {
    line: Cell<[u8; DATE_LINE_BYTES]>,
    second: Cell<u64>,
}

impl DateLine {
    /// The line for the time `now` since 1970.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        let date = Self { line: Cell::new([b' '; DATE_LINE_BYTES]), second: Cell::new(u64::MAX) };
        date.set(now);
        date
    }

    /// Sets the time since 1970.
    pub fn set(&self, now: Duration) {
        let second = now.as_secs();
        if self.second.replace(second) == second {
            return;
        }
        let mut line = [b' '; DATE_LINE_BYTES];
        let (name, rest) = line.split_at_mut(NAME.len());
        let (mut date, end) = rest.split_at_mut(DATE_BYTES);
        name.copy_from_slice(NAME);
        // It fits until the year 9999, and would be cut from then on.
        let written = write!(date, "{}", httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second)));
        debug_assert!(written.is_ok());
        end.copy_from_slice(END);
        self.line.set(line);
    }

    /// The line, with its CR LF.
    #[must_use]
    pub fn get(&self) -> [u8; DATE_LINE_BYTES] {
        self.line.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_form_of_the_rfc_and_follows_the_clock() {
        let line = DateLine::new(Duration::from_secs(784_111_777));
        assert_eq!(&line.get(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        line.set(Duration::from_millis(784_111_778_999));
        assert_eq!(&line.get(), b"Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
    }
}
