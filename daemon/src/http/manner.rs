//! What of a request its answer depends on.

use super::cors;

/// How a request wants to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// Whether the body is left out: the answer to HEAD.
    pub head_only: bool,
    /// The header that a kept client of HTTP/1.0 needs.
    pub keep_alive_header: Option<(&'static str, &'static str)>,
    /// The origin of the web page that asks, if it may.
    pub allow_origin: Option<&'static str>,
    /// Whether a body of unknown length may be sent in chunks: the client speaks HTTP/1.1.
    pub takes_chunks: bool,
}

impl Manner {
    /// For a reply after which nothing is read, whatever its request asks for.
    pub const CLOSING: Self =
        Self { keep_alive: false, head_only: false, keep_alive_header: None, allow_origin: None, takes_chunks: false };

    /// The same, closing the connection.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { keep_alive: false, keep_alive_header: None, ..self }
    }

    /// Headers that every answer to it has.
    pub fn headers<'a>(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let cors = self.allow_origin.map(cors::headers);
        self.keep_alive_header.into_iter().chain(cors.into_iter().flatten())
    }
}
