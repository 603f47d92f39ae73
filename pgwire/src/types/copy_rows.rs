//! Rows for `COPY … FROM STDIN (FORMAT binary)`, in one buffer, without an allocation for each field.
//!
//! Source: PostgreSQL documentation, COPY, "Binary Format".

use super::PG_EPOCH_UNIX_US;
use super::param::JSONB_VERSION;
use crate::error::Error;

/// The signature of a binary COPY.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// The number of fields that marks the end.
const TRAILER: i16 = -1;

/// An encoder of rows. Start each row with [`BinaryCopy::row`], then add its fields in the order of the COPY's columns.
///
/// When there are enough [`BinaryCopy::bytes`] (64 KiB to 1 MiB is a good size), send them and call
/// [`BinaryCopy::clear`]. After [`BinaryCopy::finish`], send the rest. The server accepts a COPY without a trailer, so
/// compare [`BinaryCopy::rows`] with the number that `CopyIn::finish` returns.
#[derive(Debug)]
pub struct BinaryCopy {
    buffer: Vec<u8>,
    rows: u64,
    /// The number of fields that the current row lacks; negative if it has too many.
    fields_missing: i64,
    /// A mistake of the caller, for [`BinaryCopy::finish`] to report.
    defect: Option<&'static str>,
}

impl BinaryCopy {
    /// Starts with the signature, in a new buffer.
    pub fn start() -> Self {
        Self::start_in(Vec::new())
    }

    /// Starts with the signature, in an existing buffer whose content is discarded.
    pub fn start_in(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(SIGNATURE);
        // No flags, no header extension.
        buffer.extend_from_slice(&[0; 8]);
        Self { buffer, rows: 0, fields_missing: 0, defect: None }
    }

    /// Starts a row of this many fields.
    pub fn row(&mut self, fields: u16) {
        self.check_row_complete();
        match i16::try_from(fields) {
            Ok(count) => self.buffer.extend_from_slice(&count.to_be_bytes()),
            Err(_) => self.defect = Some("a row has more than 32,767 fields"),
        }
        self.fields_missing = i64::from(fields);
        self.rows += 1;
    }

    /// NULL, of any type.
    pub fn null(&mut self) {
        self.fields_missing -= 1;
        self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    /// `bool`
    pub fn bool(&mut self, value: bool) {
        self.field(&[u8::from(value)]);
    }

    /// `integer`
    pub fn i32(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    /// `bigint`
    pub fn i64(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    /// `uuid`
    pub fn uuid(&mut self, value: &[u8; 16]) {
        self.field(value);
    }

    /// `text` or `varchar`. The server refuses a text with a NUL.
    pub fn text(&mut self, value: &str) {
        self.field(value.as_bytes());
    }

    /// `bytea`
    pub fn bytea(&mut self, value: &[u8]) {
        self.field(value);
    }

    /// `jsonb`, as JSON text in UTF-8, which the server checks.
    pub fn jsonb(&mut self, json: &[u8]) {
        self.length_word(json.len().saturating_add(1));
        self.buffer.push(JSONB_VERSION);
        self.buffer.extend_from_slice(json);
    }

    /// `timestamptz`, in microseconds since 1970-01-01 00:00:00 UTC.
    pub fn timestamptz_us(&mut self, unix_us: i64) {
        self.i64(unix_us.saturating_sub(PG_EPOCH_UNIX_US));
    }

    /// The encoded bytes since the last [`BinaryCopy::clear`].
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Empties the buffer after its bytes were sent, and keeps its memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// The number of rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds the trailer, and returns the number of rows. The rest of [`BinaryCopy::bytes`] must be sent before
    /// `CopyIn::finish`.
    ///
    /// # Errors
    /// [`Error::Usage`] if a row has more or fewer fields than declared, or a field is too long. The COPY must then be
    /// aborted.
    pub fn finish(&mut self) -> Result<u64, Error> {
        self.check_row_complete();
        self.buffer.extend_from_slice(&TRAILER.to_be_bytes());
        match self.defect {
            Some(defect) => Err(Error::Usage { what: format!("binary COPY: {defect}") }),
            None => Ok(self.rows),
        }
    }

    /// The buffer, for [`BinaryCopy::start_in`].
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    fn field(&mut self, value: &[u8]) {
        self.length_word(value.len());
        self.buffer.extend_from_slice(value);
    }

    fn length_word(&mut self, length_bytes: usize) {
        self.fields_missing -= 1;
        match i32::try_from(length_bytes) {
            Ok(length) => self.buffer.extend_from_slice(&length.to_be_bytes()),
            Err(_) => self.defect = Some("a field is longer than 2 GiB"),
        }
    }

    fn check_row_complete(&mut self) {
        if self.fields_missing != 0 {
            self.defect = Some("a row has more or fewer fields than declared");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_the_wrong_number_of_fields_is_refused_at_the_end() {
        for fields_written in [0, 1, 3] {
            let mut rows = BinaryCopy::start();
            rows.row(2);
            (0..fields_written).for_each(|value| rows.i64(value));
            assert!(matches!(rows.finish(), Err(Error::Usage { .. })), "{fields_written} fields of 2");
        }
    }

    #[test]
    fn a_used_buffer_is_started_in_again_with_nothing_left_of_before() {
        let mut rows = BinaryCopy::start();
        rows.row(1);
        rows.text("left over");
        let fresh = BinaryCopy::start();
        assert_eq!(BinaryCopy::start_in(rows.into_buffer()).bytes(), fresh.bytes());
    }
}
