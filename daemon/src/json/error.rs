//! What is wrong with a document, and at which byte.

use std::fmt;

/// Why a document was refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Byte of the input, counted from 0, at which it is wrong. For a number or an escape this is its first byte.
    pub offset: usize,
}

/// What is wrong with a document. The last group is JSON by RFC 8259, or nearly, but nothing that `jsonb` (or this
/// edge's limits) can hold; see [`JsonErrorKind::is_not_storable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JsonErrorKind {
    /// The input stops inside the document, or before it.
    UnexpectedEnd,
    /// A value should start here.
    ExpectedValue,
    /// A key in double quotes should start here.
    ExpectedKey,
    /// A colon should follow the key.
    ExpectedColon,
    /// A comma or a closing brace should follow the member.
    ExpectedCommaOrBrace,
    /// A comma or a closing bracket should follow the element.
    ExpectedCommaOrBracket,
    /// Something follows the document.
    TrailingData,
    /// The input starts with a byte order mark.
    ByteOrderMark,
    /// A byte below 0x20 stands in a string unescaped.
    ControlCharacter,
    /// A backslash is followed by something that is no escape.
    BadEscape,
    /// A digit is missing.
    BadNumber,

    /// `\u0000`, which PostgreSQL's text cannot hold.
    NulCharacter,
    /// Half of a surrogate pair, or a reversed one.
    LoneSurrogate,
    /// Bytes that are not UTF-8.
    InvalidUtf8,
    /// A number that needs more than [`MAX_NUMBER_DIGITS`](super::MAX_NUMBER_DIGITS) digits written out.
    TooManyDigits,
    /// More than [`MAX_DEPTH`](super::MAX_DEPTH) arrays and objects inside each other.
    TooDeep,
}

impl JsonErrorKind {
    /// True for what is refused because `jsonb` cannot, or shall not, hold it; false for what is not JSON.
    #[must_use]
    pub const fn is_not_storable(self) -> bool {
        matches!(
            self,
            Self::NulCharacter | Self::LoneSurrogate | Self::InvalidUtf8 | Self::TooManyDigits | Self::TooDeep
        )
    }

    const fn text(self) -> &'static str {
        match self {
            Self::UnexpectedEnd => "the JSON ends too early",
            Self::ExpectedValue => "expected a value",
            Self::ExpectedKey => "expected a key in double quotes",
            Self::ExpectedColon => "expected ':'",
            Self::ExpectedCommaOrBrace => "expected ',' or '}'",
            Self::ExpectedCommaOrBracket => "expected ',' or ']'",
            Self::TrailingData => "something follows the JSON document",
            Self::ByteOrderMark => "a byte order mark is not allowed",
            Self::ControlCharacter => "a control character must be escaped",
            Self::BadEscape => "not an escape sequence",
            Self::BadNumber => "expected a digit",
            Self::NulCharacter => "\\u0000 cannot be stored",
            Self::LoneSurrogate => "half of a surrogate pair cannot be stored",
            Self::InvalidUtf8 => "invalid UTF-8 cannot be stored",
            Self::TooManyDigits => "a number that needs more than 1000 digits written out cannot be stored",
            Self::TooDeep => "nesting beyond 512 cannot be stored",
        }
    }
}

impl fmt::Display for JsonErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl std::error::Error for JsonError {}
