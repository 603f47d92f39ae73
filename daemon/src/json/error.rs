//! Faults of a document, and their places.

/// Why a document was refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Byte of the input, counted from 0, at which it is wrong. For a number or an escape this is its first byte.
    pub offset: usize,
}

/// What is wrong with a document. The last group is JSON by RFC 8259, or nearly, but `jsonb` or the daemon's limits cannot hold it;
/// see [`JsonErrorKind::is_not_storable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JsonErrorKind {
    /// The input stops inside the document, or before it.
    #[error("the JSON ends too early")]
    UnexpectedEnd,
    /// A value should start here.
    #[error("expected a value")]
    ExpectedValue,
    /// A key in double quotes should start here.
    #[error("expected a key in double quotes")]
    ExpectedKey,
    /// A colon should follow the key.
    #[error("expected ':'")]
    ExpectedColon,
    /// A comma or a closing brace should follow the member.
    #[error("expected ',' or '}}'")]
    ExpectedCommaOrBrace,
    /// A comma or a closing bracket should follow the element.
    #[error("expected ',' or ']'")]
    ExpectedCommaOrBracket,
    /// Other data follows the document.
    #[error("something follows the JSON document")]
    TrailingData,
    /// The input starts with a byte order mark.
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    /// A byte below 0x20 stands in a string unescaped.
    #[error("a control character must be escaped")]
    ControlCharacter,
    /// A backslash does not begin an escape sequence.
    #[error("not an escape sequence")]
    BadEscape,
    /// A digit is missing.
    #[error("expected a digit")]
    BadNumber,

    /// `\u0000`, which PostgreSQL's text cannot hold.
    #[error("\\u0000 cannot be stored")]
    NulCharacter,
    /// Half of a surrogate pair, or a reversed one.
    #[error("half of a surrogate pair cannot be stored")]
    LoneSurrogate,
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8 cannot be stored")]
    InvalidUtf8,
    /// A number that needs more than [`MAX_NUMBER_DIGITS`](super::MAX_NUMBER_DIGITS) digits written out.
    #[error("a number that needs more than 1000 digits written out cannot be stored")]
    TooManyDigits,
    /// More than [`MAX_DEPTH`](super::MAX_DEPTH) arrays and objects inside each other.
    #[error("nesting beyond 512 cannot be stored")]
    TooDeep,
}

impl JsonErrorKind {
    /// Whether the document is refused because `jsonb` cannot, or should not, hold it. Otherwise it is not JSON.
    #[must_use]
    pub const fn is_not_storable(self) -> bool {
        matches!(
            self,
            Self::NulCharacter | Self::LoneSurrogate | Self::InvalidUtf8 | Self::TooManyDigits | Self::TooDeep
        )
    }
}
