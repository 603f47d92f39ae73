//! What an answer takes from its request.

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
}

impl Manner {
    /// Headers that every answer to it has.
    pub fn headers<'a>(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let cors = self.allow_origin.map(cors::headers);
        self.keep_alive_header.into_iter().chain(cors.into_iter().flatten())
    }
}
