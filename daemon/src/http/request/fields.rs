//! The headers that the daemon reads.

use super::{Body, FetchSite, Version};
use crate::http::{ErrorCode, Limits, Refusal};

/// The headers, collected line by line.
#[derive(Default)]
pub(super) struct Fields<'a> {
    content_length: Option<u64>,
    transfer_encoding: TransferEncoding,
    connection_close: bool,
    connection_keep_alive: bool,
    pub(super) expect_continue: bool,
    expect_other: bool,
    pub(super) prefer_minimal: bool,
    pub(super) host: Option<&'a [u8]>,
    pub(super) content_type: Option<&'a str>,
    pub(super) content_encoding: Option<&'a str>,
    pub(super) idempotency_key: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    pub(super) accept: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    pub(super) fetch_site: FetchSite,
    navigates: bool,
    fetches_document: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    #[default]
    Absent,
    Chunked,
    /// Others, then `chunked` as the last one: the body's end is known, and its content is not.
    OtherChunked,
    /// `chunked` is not the last one, so the body's end is unknown.
    Endless,
}

#[derive(Clone, Copy)]
enum Name {
    Accept,
    Authorization,
    Connection,
    ContentEncoding,
    ContentLength,
    ContentType,
    Expect,
    Host,
    IdempotencyKey,
    Origin,
    Prefer,
    SecFetchDest,
    SecFetchMode,
    SecFetchSite,
    TransferEncoding,
}

/// The header of this name in any case of letters, if the daemon reads it. It compares lengths first, since most headers are
/// others.
fn known(name: &str) -> Option<Name> {
    let candidates: &[(&str, Name)] = match name.len() {
        4 => &[("host", Name::Host)],
        6 => &[("accept", Name::Accept), ("expect", Name::Expect), ("origin", Name::Origin), ("prefer", Name::Prefer)],
        10 => &[("connection", Name::Connection)],
        12 => &[("content-type", Name::ContentType)],
        13 => &[("authorization", Name::Authorization)],
        14 => &[
            ("content-length", Name::ContentLength),
            ("sec-fetch-dest", Name::SecFetchDest),
            ("sec-fetch-mode", Name::SecFetchMode),
            ("sec-fetch-site", Name::SecFetchSite),
        ],
        15 => &[("idempotency-key", Name::IdempotencyKey)],
        16 => &[("content-encoding", Name::ContentEncoding)],
        17 => &[("transfer-encoding", Name::TransferEncoding)],
        _ => &[],
    };
    candidates.iter().find(|(known, _)| is_name(name, known)).map(|(_, name)| *name)
}

/// Whether a header's name is `known`, which has the same length and is in lower case. Of the characters that a name may have,
/// bit 0x20 turns only letters into letters, and nothing else into a hyphen. There is no branch in the loop, since most names
/// that are compared are equal.
fn is_name(name: &str, known: &str) -> bool {
    name.bytes().zip(known.bytes()).fold(0, |differs, (byte, known)| differs | (byte | 0x20) ^ known) == 0
}

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        match known(name) {
            None => Ok(()),
            Some(Name::ContentLength) => self.take_content_length(value),
            Some(Name::TransferEncoding) => {
                let is_chunked = value.eq_ignore_ascii_case(b"chunked");
                let ends_chunked = elements(value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
                self.transfer_encoding = match self.transfer_encoding {
                    TransferEncoding::Absent if is_chunked => TransferEncoding::Chunked,
                    _ if ends_chunked => TransferEncoding::OtherChunked,
                    _ => TransferEncoding::Endless,
                };
                Ok(())
            }
            Some(Name::Connection) => {
                for option in elements(value) {
                    self.connection_close |= option.eq_ignore_ascii_case(b"close");
                    self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            Some(Name::Expect) => {
                let is_continue = value.eq_ignore_ascii_case(b"100-continue");
                self.expect_continue |= is_continue;
                self.expect_other |= !is_continue;
                Ok(())
            }
            Some(Name::Prefer) => {
                self.prefer_minimal |= elements(value).any(is_return_minimal);
                Ok(())
            }
            // The list may be split over lines. The daemon reads the first one only.
            Some(Name::Accept) => {
                self.accept = self.accept.or(Some(text("Accept", value)?));
                Ok(())
            }
            Some(Name::Host) => {
                if !is_host(value) {
                    return Err(Refusal::malformed("Host is not a host"));
                }
                if self.host.replace(value).is_some() {
                    return Err(Refusal::malformed("more than one Host"));
                }
                Ok(())
            }
            Some(Name::ContentType) => once(&mut self.content_type, "Content-Type", value),
            Some(Name::ContentEncoding) => once(&mut self.content_encoding, "Content-Encoding", value),
            Some(Name::IdempotencyKey) => once(&mut self.idempotency_key, "Idempotency-Key", value),
            Some(Name::Authorization) => once(&mut self.authorization, "Authorization", value),
            Some(Name::Origin) => once(&mut self.origin, "Origin", value),
            // Of several lines the worst one counts.
            Some(Name::SecFetchSite) => {
                self.fetch_site = self.fetch_site.max(FetchSite::parse(value));
                Ok(())
            }
            Some(Name::SecFetchMode) => {
                self.navigates = value == b"navigate";
                Ok(())
            }
            Some(Name::SecFetchDest) => {
                self.fetches_document = value == b"document";
                Ok(())
            }
        }
    }

    /// A length is digits only, without sign, list or white space, and occurs once. Two equal ones are refused too, because a
    /// proxy before the daemon may read them differently.
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.content_length.is_some() {
            return Err(Refusal::malformed("more than one Content-Length"));
        }
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse().ok());
        self.content_length =
            Some(length.ok_or_else(|| Refusal::malformed("Content-Length is not a number of bytes"))?);
        Ok(())
    }

    /// The framing of the body, after all lines.
    pub(super) fn framing(&self, version: Version, limits: &Limits) -> Result<Body, Refusal> {
        match (self.transfer_encoding, self.content_length) {
            (TransferEncoding::Absent, None) => Ok(Body::None),
            (TransferEncoding::Absent, Some(length)) if length > limits.max_body_bytes => {
                Err(Refusal::body_too_large(limits.max_body_bytes))
            }
            (TransferEncoding::Absent, Some(length)) => Ok(Body::Length(length)),
            (_, Some(_)) => Err(Refusal::malformed("both Content-Length and Transfer-Encoding")),
            (_, None) if version == Version::Http10 => {
                Err(Refusal::malformed("Transfer-Encoding in a request of HTTP/1.0"))
            }
            (TransferEncoding::Chunked, None) => Ok(Body::Chunked),
            (TransferEncoding::Endless, None) => {
                Err(Refusal::malformed("the last Transfer-Encoding is not chunked, so the body's end is unknown"))
            }
            (TransferEncoding::OtherChunked, None) => {
                Err(Refusal::from(ErrorCode::TransferEncodingNotSupported).closing())
            }
        }
    }

    /// Checks the rules of HTTP/1.1 that HTTP/1.0 does not have.
    pub(super) fn check_version(&self, version: Version) -> Result<(), Refusal> {
        if version == Version::Http10 {
            return Ok(());
        }
        if self.host.is_none() {
            return Err(Refusal::malformed("a request of HTTP/1.1 needs a Host"));
        }
        if self.expect_other {
            return Err(Refusal::from(ErrorCode::ExpectationFailed).closing());
        }
        Ok(())
    }

    /// See [`Head::is_navigation`](super::Head::is_navigation).
    pub(super) fn is_navigation(&self) -> bool {
        self.navigates && self.fetches_document
    }

    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.connection_close && (version == Version::Http11 || self.connection_keep_alive)
    }
}

fn once<'a>(place: &mut Option<&'a str>, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
    if place.is_some() {
        return Err(Refusal::malformed(format!("more than one {name}")));
    }
    *place = Some(text(name, value)?);
    Ok(())
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, Refusal> {
    std::str::from_utf8(value).map_err(|_| Refusal::malformed(format!("{name} is not UTF-8")))
}

/// The elements of a comma-separated list.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a preference is `return=minimal`, whatever its parameters (RFC 7240 section 2).
fn is_return_minimal(preference: &[u8]) -> bool {
    let mut parts = preference.split(|byte| *byte == b';').next().unwrap_or_default().split(|byte| *byte == b'=');
    let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let value = value.trim_ascii();
    let value = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    name.trim_ascii().eq_ignore_ascii_case(b"return") && value.eq_ignore_ascii_case(b"minimal")
}

/// The bytes that may stand in a host with a port: visible ASCII except those that end an authority, name a user, or make a list
/// (RFC 3986 section 3.2.2). It is a table because every request has a host.
const HOST_BYTES: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        allowed[byte as usize] = true;
        byte += 1;
    }
    let excluded = b"/?#@\\\"<>^`{|},";
    let mut at = 0;
    while at < excluded.len() {
        allowed[excluded[at] as usize] = false;
        at += 1;
    }
    allowed
};

/// Whether these bytes may be a host with a port; they may be empty.
pub(super) fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| HOST_BYTES[usize::from(*byte)])
}
