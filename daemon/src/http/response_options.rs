//! What an answer takes from its request.

use super::cors;

/// How a request is answered, besides the answer itself.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions {
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// Whether the body is left out: the answer to HEAD.
    pub head_only: bool,
    /// The header that tells a client of HTTP/1.0 that its connection is kept.
    pub keep_alive_header: Option<(&'static str, &'static str)>,
    /// The origin of the web page that sent the request, if it is allowed.
    pub allow_origin: Option<&'static str>,
}

impl ResponseOptions {
    /// The headers of every answer with these options.
    pub fn headers<'a>(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let cors = self.allow_origin.map(cors::headers);
        self.keep_alive_header.into_iter().chain(cors.into_iter().flatten())
    }
}
