//! The date as answers say it (RFC 9110 section 6.6.1), written once a second and not once a request.

use std::{
    cell::Cell,
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

/// As many bytes as `Sun, 06 Nov 1994 08:49:37 GMT` has.
pub const DATE_BYTES: usize = 29;

/// The `Date` of answers now.
pub(super) struct DateLine {
    text: Cell<[u8; DATE_BYTES]>,
    second: Cell<u64>,
}

impl DateLine {
    pub(super) fn new(now: Duration) -> Self {
        let line = Self { text: Cell::new([b' '; DATE_BYTES]), second: Cell::new(u64::MAX) };
        line.set(now);
        line
    }

    /// Notes the time since 1970.
    pub(super) fn set(&self, now: Duration) {
        let second = now.as_secs();
        if self.second.replace(second) == second {
            return;
        }
        let mut text = [b' '; DATE_BYTES];
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
        // It fits until the year 9999, and would be cut from then on.
        let written = write!(&mut text[..], "{date}");
        debug_assert!(written.is_ok());
        self.text.set(text);
    }

    pub(super) fn text(&self) -> [u8; DATE_BYTES] {
        self.text.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_form_of_the_rfc_and_follows_the_clock() {
        let line = DateLine::new(Duration::from_secs(784_111_777));
        assert_eq!(&line.text(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        line.set(Duration::from_millis(784_111_778_999));
        assert_eq!(&line.text(), b"Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
