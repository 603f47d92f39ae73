//! From a request's head to what it asks for, before anything of its body was read.

use crate::{
    access::{Asked, Scope},
    http::{ErrorCode, Head, Method, Refusal, path},
};
use std::borrow::Cow;

/// What a request asks for. The names are decoded; none of them is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `POST /api/v1/push`; its queues are in the body.
    PushJson,
    /// `POST /push/{queue}[/{partition}]`
    PushByPath {
        /// The queue.
        queue: Cow<'a, str>,
        /// The partition, where the path says one.
        partition: Option<Cow<'a, str>>,
    },
    /// `GET /health`
    Health,
    /// `GET /ready`
    Ready,
    /// `GET /api/v1/status/buffers`
    Buffers,
    /// Below `/api/v1/dead-letters`.
    DeadLetters(LettersRoute<'a>),
    /// `OPTIONS` of any of them: the methods that it has, as `Allow` lists them.
    Options(&'static str),
}

/// What is asked for below `/api/v1/dead-letters`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LettersRoute<'a> {
    /// `GET` of the list.
    List,
    /// `POST …/retry`
    RetryAll,
    /// `GET …/{id}`
    Show(Cow<'a, str>),
    /// `POST …/{id}/retry`
    Retry(Cow<'a, str>),
    /// `DELETE …/{id}`
    Drop(Cow<'a, str>),
}

impl Route<'_> {
    /// What it asks of whoever calls it, where access is controlled. `/health` is open: it does nothing, and tells nothing but
    /// that the daemon is there.
    #[must_use]
    pub fn asked(&self) -> Asked {
        match self {
            Self::PushJson | Self::PushByPath { .. } => Asked::Scope(Scope::Push),
            Self::DeadLetters(_) | Self::Buffers => Asked::Scope(Scope::Admin),
            Self::Ready | Self::Options(_) => Asked::Token,
            Self::Health => Asked::Nothing,
        }
    }

    /// The queue that its path names.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        match self {
            Self::PushByPath { queue, .. } => Some(queue),
            _ => None,
        }
    }

    /// Whether its body is lines that are pushed one by one, as they come.
    #[must_use]
    pub fn takes_lines(&self, head: &Head<'_>) -> bool {
        const LINES: &str = "application/x-ndjson";
        matches!(self, Self::PushByPath { .. })
            && head.media_type().is_some_and(|media_type| media_type.eq_ignore_ascii_case(LINES))
    }

    /// Whether it is a push: it has a body, and the log must take it.
    #[must_use]
    pub fn is_push(&self) -> bool {
        matches!(self, Self::PushJson | Self::PushByPath { .. })
    }
}

const GET: &str = "GET, HEAD, OPTIONS";
const GET_DELETE: &str = "GET, HEAD, DELETE, OPTIONS";
const POST: &str = "POST, OPTIONS";

/// What `OPTIONS *` is told: the methods that there are anywhere.
const ANYWHERE: &str = "GET, HEAD, POST, DELETE, OPTIONS";

/// The most segments that a path with something behind it has.
const SEGMENTS_MAX: usize = 5;

/// What `method` asks for at `path`, which is not decoded yet.
///
/// # Errors
/// 404 where there is nothing, 405 where there is something for another method, 400 for a segment that cannot be decoded, 501
/// for a method that nobody knows (RFC 9110 section 9.1).
pub fn route(method: Method, path: &str) -> Result<Route<'_>, Refusal> {
    if path == "/api/v1/push" && method == Method::Post {
        return Ok(Route::PushJson);
    }
    match method {
        Method::Other => {
            return Err(ErrorCode::MethodNotImplemented.into());
        }
        Method::Options if path == "*" => return Ok(Route::Options(ANYWHERE)),
        _ => {}
    }
    let mut segments: [Cow<'_, str>; SEGMENTS_MAX] = Default::default();
    let mut count = 0;
    for segment in path::segments(path) {
        let segment = segment?;
        *segments.get_mut(count).ok_or_else(|| not_found(path))? = segment;
        count += 1;
    }
    let texts = segments.each_ref().map(AsRef::as_ref);
    let allowed = match texts[..count] {
        ["api", "v1", "push"] | ["push", _] | ["push", _, _] => POST,
        ["health"] | ["ready"] | ["api", "v1", "status", "buffers"] => GET,
        ["api", "v1", "dead-letters"] => GET,
        ["api", "v1", "dead-letters", "retry"] | ["api", "v1", "dead-letters", _, "retry"] => POST,
        ["api", "v1", "dead-letters", _] => GET_DELETE,
        _ => return Err(not_found(path)),
    };
    match (method, allowed) {
        (Method::Options, _) => return Ok(Route::Options(allowed)),
        (Method::Get | Method::Head, GET | GET_DELETE) | (Method::Post, POST) | (Method::Delete, GET_DELETE) => {}
        _ => return Err(Refusal::method_not_allowed(allowed)),
    }
    Ok(match texts[..count] {
        ["api", "v1", "push"] => Route::PushJson,
        ["health"] => Route::Health,
        ["ready"] => Route::Ready,
        ["api", "v1", "status", _] => Route::Buffers,
        ["push", ..] => {
            let [_, queue, partition, ..] = segments;
            Route::PushByPath { queue, partition: (count == 3).then_some(partition) }
        }
        _ => Route::DeadLetters(letters(method, segments, count)),
    })
}

fn letters(method: Method, segments: [Cow<'_, str>; SEGMENTS_MAX], count: usize) -> LettersRoute<'_> {
    let [_, _, _, id, _] = segments;
    match (method, count) {
        (_, 3) => LettersRoute::List,
        (_, 5) => LettersRoute::Retry(id),
        (Method::Post, _) => LettersRoute::RetryAll,
        (Method::Delete, _) => LettersRoute::Drop(id),
        _ => LettersRoute::Show(id),
    }
}

fn not_found(path: &str) -> Refusal {
    Refusal::new(ErrorCode::NoSuchRoute, format!("there is nothing at {}", shortened(path)))
}

/// A path as it may stand in a message.
fn shortened(path: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    let mut shown: String = path.chars().take(SHOWN_CHARS).collect();
    if shown.len() < path.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_where_it_should_and_says_what_a_token_must_allow() {
        let by_path = |queue: &'static str, partition: Option<&'static str>| Route::PushByPath {
            queue: queue.into(),
            partition: partition.map(Into::into),
        };
        let letters = |route| Route::DeadLetters(route);
        for (method, path, expected, asked) in [
            (Method::Post, "/api/v1/push", Route::PushJson, Asked::Scope(Scope::Push)),
            (Method::Post, "/api/v1/p%75sh", Route::PushJson, Asked::Scope(Scope::Push)),
            (Method::Post, "/push/a%2Fb", by_path("a/b", None), Asked::Scope(Scope::Push)),
            (Method::Post, "/push/q/p", by_path("q", Some("p")), Asked::Scope(Scope::Push)),
            (Method::Post, "/push/", by_path("", None), Asked::Scope(Scope::Push)),
            (Method::Get, "/health", Route::Health, Asked::Nothing),
            (Method::Head, "/ready", Route::Ready, Asked::Token),
            (Method::Get, "/api/v1/status/buffers", Route::Buffers, Asked::Scope(Scope::Admin)),
            (Method::Get, "/api/v1/dead-letters", letters(LettersRoute::List), Asked::Scope(Scope::Admin)),
            (
                Method::Get,
                "/api/v1/dead-letters/7",
                letters(LettersRoute::Show("7".into())),
                Asked::Scope(Scope::Admin),
            ),
            (
                Method::Delete,
                "/api/v1/dead-letters/7",
                letters(LettersRoute::Drop("7".into())),
                Asked::Scope(Scope::Admin),
            ),
            (
                Method::Post,
                "/api/v1/dead-letters/7/retry",
                letters(LettersRoute::Retry("7".into())),
                Asked::Scope(Scope::Admin),
            ),
            (Method::Post, "/api/v1/dead-letters/retry", letters(LettersRoute::RetryAll), Asked::Scope(Scope::Admin)),
            (Method::Options, "/push/q", Route::Options(POST), Asked::Token),
            (Method::Options, "*", Route::Options(ANYWHERE), Asked::Token),
        ] {
            let found = route(method, path).unwrap();
            assert_eq!(found, expected, "{path}");
            assert_eq!(found.asked(), asked, "{path}");
        }
        assert_eq!(route(Method::Post, "/push/q/p").unwrap().queue(), Some("q"));
    }

    #[test]
    fn where_there_is_nothing_it_is_404_and_for_another_method_405() {
        let status = |method, path| route(method, path).map_err(|refusal| refusal.status);
        for path in ["/", "/push", "/push/a/b/c", "/a/b/c/d/e/f/g", "/api/v1/pushes", "*"] {
            assert_eq!(status(Method::Post, path), Err(404), "{path}");
        }
        assert_eq!(status(Method::Get, "/api/v1/push"), Err(405));
        assert_eq!(status(Method::Post, "/health"), Err(405));
        assert_eq!(status(Method::Delete, "/api/v1/dead-letters"), Err(405));
        assert_eq!(status(Method::Trace, "/push/q"), Err(405));
        assert_eq!((status(Method::Other, "/push/q"), status(Method::Other, "/")), (Err(501), Err(501)));
        assert_eq!(status(Method::Post, "/push/%zz"), Err(400));
        let allow = route(Method::Get, "/api/v1/dead-letters/retry").unwrap_err().allow;
        assert_eq!(allow, Some(POST));
    }
}
