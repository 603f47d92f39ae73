//! What an answer takes from its request.

use super::{Version, cors};

/// How a request is answered, besides the answer itself.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions {
    /// Whether the connection stays open after the reply.
    pub keep_alive: bool,
    /// Whether the body is left out: the reply to HEAD.
    pub head_only: bool,
    /// The version that the client speaks.
    pub version: Version,
    /// The origin of the web page that asks, if it may.
    pub allow_origin: Option<&'static str>,
}

impl ResponseOptions {
    /// For a reply after which nothing is read, whatever its request asks for.
    pub const CLOSING: Self =
        Self { keep_alive: false, head_only: false, version: Version::Http10, allow_origin: None };

    /// The same, closing the connection.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { keep_alive: false, ..self }
    }

    /// Whether a body of unknown length may be sent in chunks.
    #[must_use]
    pub fn takes_chunks(self) -> bool {
        self.version == Version::Http11
    }

    /// Headers that every reply to it has. A client of HTTP/1.0 is told that its connection is kept; for HTTP/1.1 that goes
    /// without saying.
    pub fn headers<'a>(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let keep_alive = (self.keep_alive && self.version == Version::Http10).then_some(("Connection", "keep-alive"));
        let cors = self.allow_origin.map(cors::headers);
        keep_alive.into_iter().chain(cors.into_iter().flatten())
    }
}
