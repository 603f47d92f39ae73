//! The grammar of RFC 8259.

use super::{
    JsonError, JsonErrorKind, MAX_NUMBER_DIGITS,
    number::{NumberParts, is_short_enough},
    text,
    text::next_special,
};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Walks over one document. Every method moves forward or fails, and none is recursive.
pub(super) struct Scanner<'a> {
    /// The body, or its part before the first byte that is not UTF-8.
    text: &'a str,
    at: usize,
    /// The error at the end of `text`.
    at_end: JsonErrorKind,
}

/// A string's text between its quotation marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringSpan<'a> {
    raw: &'a str,
    has_escapes: bool,
}

impl<'a> StringSpan<'a> {
    /// The string, with its escapes resolved.
    #[inline]
    pub(super) fn decode(self) -> std::borrow::Cow<'a, str> {
        if self.has_escapes { text::decode(self.raw) } else { self.raw.into() }
    }
}

impl<'a> Scanner<'a> {
    /// Checks the UTF-8 of the whole body at once. Invalid UTF-8 ends the text, so that an earlier error is reported first, and
    /// the invalid bytes with their place in the document.
    pub(super) fn new(body: &'a [u8]) -> Self {
        match simdutf8::basic::from_utf8(body) {
            Ok(text) => Self { text, at: 0, at_end: JsonErrorKind::UnexpectedEnd },
            Err(_) => {
                let text = body.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                Self { text, at: 0, at_end: JsonErrorKind::InvalidUtf8 }
            }
        }
    }

    /// The position of the next byte.
    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The number of bytes that follow.
    pub(super) fn rest_bytes(&self) -> usize {
        self.text.len() - self.at
    }

    /// The bytes between two positions, which must be ends of values.
    #[inline]
    pub(super) fn raw(&self, from: usize, to: usize) -> &'a [u8] {
        self.text(from, to).as_bytes()
    }

    /// The same as text.
    #[inline]
    pub(super) fn text(&self, from: usize, to: usize) -> &'a str {
        &self.text[from..to]
    }

    /// The next byte, or the error at the end of the text.
    #[inline]
    pub(super) fn peek(&self) -> Result<u8, JsonError> {
        self.byte_at(self.at)
    }

    #[inline]
    fn byte_at(&self, at: usize) -> Result<u8, JsonError> {
        match self.text.as_bytes().get(at) {
            Some(byte) => Ok(*byte),
            None => Err(self.end_error()),
        }
    }

    #[cold]
    fn end_error(&self) -> JsonError {
        JsonError { kind: self.at_end, offset: self.text.len() }
    }

    #[cold]
    pub(super) fn error<T>(&self, kind: JsonErrorKind) -> Result<T, JsonError> {
        Err(JsonError { kind, offset: self.at })
    }

    #[inline]
    pub(super) fn skip_white_space(&mut self) {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Moves to the document's first byte.
    pub(super) fn start(&mut self) -> Result<(), JsonError> {
        if self.text.starts_with(BYTE_ORDER_MARK) {
            return self.error(JsonErrorKind::ByteOrderMark);
        }
        self.skip_white_space();
        Ok(())
    }

    /// Checks that only white space follows.
    pub(super) fn finish(&mut self) -> Result<(), JsonError> {
        self.skip_white_space();
        if self.at < self.text.len() {
            return self.error(JsonErrorKind::TrailingData);
        }
        // A body that was cut at invalid UTF-8 ends here too.
        if self.at_end == JsonErrorKind::UnexpectedEnd { Ok(()) } else { Err(self.end_error()) }
    }

    /// Steps over an opening bracket or brace, and over `close` if that follows at once. Returns whether a first element or key
    /// follows instead.
    #[inline]
    pub(super) fn open(&mut self, close: u8) -> Result<bool, JsonError> {
        self.at += 1;
        self.skip_white_space();
        if self.peek()? == close {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// After a value in an object or array, steps over a comma or over `close`. Returns whether it was a comma, so that another
    /// key or element follows.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> Result<bool, JsonError> {
        self.skip_white_space();
        let byte = self.peek()?;
        if byte == b',' {
            self.at += 1;
            self.skip_white_space();
            return Ok(true);
        }
        if byte == close {
            self.at += 1;
            return Ok(false);
        }
        self.error(if close == b'}' {
            JsonErrorKind::ExpectedCommaOrBrace
        } else {
            JsonErrorKind::ExpectedCommaOrBracket
        })
    }

    /// Reads a key and its colon, and moves to the value's first byte.
    #[inline]
    pub(super) fn key(&mut self) -> Result<StringSpan<'a>, JsonError> {
        if self.peek()? != b'"' {
            return self.error(JsonErrorKind::ExpectedKey);
        }
        let key = self.string()?;
        self.skip_white_space();
        if self.peek()? != b':' {
            return self.error(JsonErrorKind::ExpectedColon);
        }
        self.at += 1;
        self.skip_white_space();
        Ok(key)
    }

    /// Steps over a value that is neither an object nor an array.
    #[inline]
    pub(super) fn scalar(&mut self, first: u8) -> Result<(), JsonError> {
        match first {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.error(JsonErrorKind::ExpectedValue),
        }
    }

    /// Reads a string. Its opening quotation mark is next.
    #[inline]
    pub(super) fn string(&mut self) -> Result<StringSpan<'a>, JsonError> {
        let start = self.at + 1;
        self.at = start;
        let mut has_escapes = false;
        loop {
            self.at = next_special(self.text.as_bytes(), self.at);
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.escape()?;
                }
                _ => return self.error(JsonErrorKind::ControlCharacter),
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        Ok(StringSpan { raw, has_escapes })
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        match self.byte_at(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 2;
                Ok(())
            }
            b'u' => self.unicode_escape(),
            _ => self.error(JsonErrorKind::BadEscape),
        }
    }

    fn unicode_escape(&mut self) -> Result<(), JsonError> {
        match self.code_unit(self.at + 2)? {
            0 => self.error(JsonErrorKind::NulCharacter),
            0xd800..=0xdbff => {
                let low_follows = self.byte_at(self.at + 6)? == b'\\'
                    && self.byte_at(self.at + 7)? == b'u'
                    && matches!(self.code_unit(self.at + 8)?, 0xdc00..=0xdfff);
                if !low_follows {
                    return self.error(JsonErrorKind::LoneSurrogate);
                }
                self.at += 12;
                Ok(())
            }
            0xdc00..=0xdfff => self.error(JsonErrorKind::LoneSurrogate),
            _ => {
                self.at += 6;
                Ok(())
            }
        }
    }

    fn code_unit(&self, at: usize) -> Result<u16, JsonError> {
        let Some(digits) = self.text.as_bytes().get(at..at + 4) else {
            return Err(self.end_error());
        };
        text::hex4(digits).ok_or(JsonError { kind: JsonErrorKind::BadEscape, offset: self.at })
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        let integer = if self.peek()? == b'0' {
            self.at += 1;
            &b"0"[..]
        } else {
            self.digits()?
        };
        let mut fraction = &b""[..];
        if self.next_is(b'.') {
            self.at += 1;
            fraction = self.digits()?;
        }
        let (mut exponent, mut exponent_is_negative) = (&b""[..], false);
        if self.next_is(b'e') || self.next_is(b'E') {
            self.at += 1;
            exponent_is_negative = self.next_is(b'-');
            if exponent_is_negative || self.next_is(b'+') {
                self.at += 1;
            }
            exponent = self.digits()?;
        }
        let is_surely_short = exponent.is_empty() && self.at - start <= MAX_NUMBER_DIGITS as usize;
        if !is_surely_short && !is_short_enough(&NumberParts { integer, fraction, exponent_is_negative, exponent }) {
            return Err(JsonError { kind: JsonErrorKind::TooManyDigits, offset: start });
        }
        Ok(())
    }

    #[inline]
    fn next_is(&self, byte: u8) -> bool {
        self.text.as_bytes().get(self.at) == Some(&byte)
    }

    /// Steps over one or more digits.
    #[inline]
    fn digits(&mut self) -> Result<&'a [u8], JsonError> {
        let start = self.at;
        if !self.peek()?.is_ascii_digit() {
            return self.error(JsonErrorKind::BadNumber);
        }
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(&bytes[start..self.at])
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), JsonError> {
        let rest = &self.text.as_bytes()[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        if word.starts_with(rest) {
            return Err(self.end_error());
        }
        self.error(JsonErrorKind::ExpectedValue)
    }
}
