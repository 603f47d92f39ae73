//! A request's head.
//!
//! `httparse` splits the head into lines and checks their bytes. This module decides what the lines mean, and which are
//! dangerous.

mod fetch_site;
mod fields;
mod method;
mod owned;
mod parse;
mod target;

pub use fetch_site::FetchSite;
pub use method::{Method, Methods};
pub use owned::OwnedHead;
pub use parse::parse;

/// The result of parsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The start of a head, or nothing. Parse again when more bytes have arrived.
    Partial,
    /// A whole head.
    Head(Head<'a>),
}

/// The versions that the daemon speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// The framing of a body: how its end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    /// No body: neither length nor chunks were announced. An endpoint that needs a body answers 411.
    None,
    /// This many bytes, within the limit; may be 0.
    Length(u64),
    /// Chunks, for [`chunked::Decoder`](super::chunked::Decoder).
    Chunked,
}

/// A whole head. Texts are as the client sent them, without the white space around them. A request that repeats a header that may
/// occur once is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// The target's path, undecoded; starts with a slash, save for `OPTIONS *`.
    pub path: &'a str,
    /// The target's query after the question mark, undecoded; empty if there is none.
    pub query: &'a str,
    /// The client's version.
    pub version: Version,
    /// Bytes of the head, with the empty lines before it. The body starts there.
    pub head_len: usize,
    /// The framing of a body: how its end is found.
    pub framing: Body,
    /// Whether the client wants the connection kept after the answer.
    pub keep_alive: bool,
    /// Whether the client waits for a 100 before it sends its body.
    pub expect_continue: bool,
    /// `Prefer: return=minimal`
    pub prefer_minimal: bool,
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
    /// The host that is asked, with its port: the authority of a target in absolute form, else `Host` (RFC 9112 section 3.2.2). It
    /// is visible ASCII, and may be empty.
    pub host: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`
    pub fetch_site: FetchSite,
    /// Whether a browser asks for a page that it shows as a whole (`Sec-Fetch-Mode: navigate`, `Sec-Fetch-Dest: document`).
    pub is_navigation: bool,
}

impl Head<'_> {
    /// The content type without its parameters, such as `application/json`, in the client's spelling.
    #[must_use]
    pub fn media_type(&self) -> Option<&str> {
        self.content_type.map(|value| value.split(';').next().unwrap_or_default().trim_ascii())
    }

    /// Whether `Accept` names this media type, and not with a weight of 0 (RFC 9110 section 12.5.1). Ranges such as `*/*` do not
    /// count: they ask for nothing in particular.
    #[must_use]
    pub fn accepts(&self, media_type: &str) -> bool {
        let mut accepted = self.accept.into_iter().flat_map(|value| value.split(','));
        accepted.any(|element| {
            let mut parts = element.split(';').map(str::trim_ascii);
            let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            is_named && weight.and_then(|weight| weight.parse::<f32>().ok()) != Some(0.0)
        })
    }
}
