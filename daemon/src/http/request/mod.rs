//! A request's head.
//!
//! `httparse` cuts the head into lines and checks which bytes stand where; what the lines mean, and what of it is
//! dangerous, is decided here.

mod fields;
mod method;
mod owned;
mod parse;
mod target;

pub use method::{Method, Methods};
pub use owned::OwnedHead;
pub use parse::parse;

/// What the bytes at hand are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The start of a head, or nothing; parse again when there is more.
    Partial,
    /// A whole head.
    Head(Head<'a>),
}

/// The versions the daemon speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How the body's end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    /// There is none: neither length nor chunks were announced. Where a body is needed this is a 411.
    None,
    /// So many bytes, within the limit; may be 0.
    Length(u64),
    /// Chunks, for [`chunked::Decoder`](super::chunked::Decoder).
    Chunked,
}

/// A whole head. The texts are as they came, without white space around them; a header that may come once is refused
/// when it comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// What is to be done.
    pub method: Method,
    /// The whole target as it came.
    pub target: &'a str,
    /// The target's path, undecoded; starts with a slash, save for `OPTIONS *`.
    pub path: &'a str,
    /// What follows the target's question mark, undecoded; empty when there is nothing.
    pub query: &'a str,
    /// The client's version.
    pub version: Version,
    /// How many bytes the head has, empty lines before it included: where the body starts.
    pub head_len: usize,
    /// How the body's end is found.
    pub framing: Body,
    /// Whether the client wants the connection kept after the answer.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends its body.
    pub expect_continue: bool,
    /// `Prefer: return=minimal`
    pub prefer_minimal: bool,
    /// `Host`, or the authority of a target in absolute form, which goes before it.
    pub host: Option<&'a str>,
    /// `Content-Type`, with its parameters.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`
    pub content_encoding: Option<&'a str>,
    /// `Idempotency-Key`, in UTF-8.
    pub idempotency_key: Option<&'a str>,
    /// `Authorization`, with its scheme.
    pub authorization: Option<&'a str>,
    /// `Accept`
    pub accept: Option<&'a str>,
    /// `Origin`
    pub origin: Option<&'a str>,
}

impl Head<'_> {
    /// The content type without its parameters, such as `application/json`, as it was written.
    #[must_use]
    pub fn media_type(&self) -> Option<&str> {
        self.content_type.map(|value| value.split(';').next().unwrap_or_default().trim_ascii())
    }
}
