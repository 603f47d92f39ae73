//! The table of endpoints, and how a request finds its row before anything of its body was read.
//!
//! An endpoint is added by one row here and a handler in a file of its own. The first pattern that matches a path is the one
//! that counts, so literals stand before the names that they would match; rows of one pattern are the methods of one path.
//! `HEAD` goes with `GET`, and `OPTIONS` with everything; neither has a row.

use super::{
    acks, configure, dead_letters,
    pattern::{PathParams, Pattern},
    pop, push,
    push::Prepared,
    reply::Reply,
    request::Request,
    state,
};
use crate::{
    access::{AccessRequest, Scope},
    http::{ErrorCode, Head, Method, Methods, Refusal, path, response::NDJSON},
};
use std::borrow::Cow;

/// What an endpoint does with a request that was admitted.
#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// It is answered.
    Answer(for<'r, 'c, 'a> fn(&Request<'r, 'c, 'a>) -> Result<Reply<'a>, Refusal>),
    /// Messages are made of it, which go into the log before it is answered.
    Push(for<'r, 'c, 'a> fn(&Request<'r, 'c, 'a>) -> Result<Prepared<'c, 'a>, Refusal>),
}

/// What body an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// None; one that is sent is passed over, neither decoded nor kept.
    None,
    /// A JSON document, or none.
    OptionalJson,
    /// A JSON document.
    Json,
    /// A payload, or lines of NDJSON of which each is one.
    PayloadOrLines,
}

impl BodyKind {
    /// Whether a body is used at all. One that is not is passed over.
    #[must_use]
    pub const fn is_used(self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether a request without a body is refused.
    #[must_use]
    pub const fn is_required(self) -> bool {
        matches!(self, Self::Json | Self::PayloadOrLines)
    }
}

/// An endpoint: a row of the table.
pub struct Route {
    /// The method that it has; [`Method::Get`] stands for `HEAD` too.
    pub method: Method,
    /// The paths that it has.
    pub pattern: Pattern,
    /// What it asks of whoever calls it, where access is controlled.
    pub access: AccessRequest,
    /// The body that it takes.
    pub body: BodyKind,
    /// Whether it only tells how the daemon is, whatever page asks.
    pub is_probe: bool,
    pub(super) handler: Handler,
}

const PUSH: AccessRequest = AccessRequest::Scope(Scope::Push);
const POP: AccessRequest = AccessRequest::Scope(Scope::Pop);
const PUSH_OR_POP: AccessRequest = AccessRequest::Either(Scope::Push, Scope::Pop);
const ADMIN: AccessRequest = AccessRequest::Scope(Scope::Admin);

/// All endpoints, those that are asked most first.
pub const ROUTES: &[Route] = &[
    push("/api/v1/push", BodyKind::Json, push::json),
    push("/push/{queue}", BodyKind::PayloadOrLines, push::by_path),
    push("/push/{queue}/{partition}", BodyKind::PayloadOrLines, push::by_path),
    answer(Method::Get, "/api/v1/pop/queue/{queue...}/partition/{partition}", POP, BodyKind::None, pop::by_queue),
    answer(Method::Get, "/api/v1/pop/queue/{queue...}", POP, BodyKind::None, pop::by_queue),
    answer(Method::Post, "/api/v1/ack", POP, BodyKind::Json, acks::single),
    answer(Method::Post, "/api/v1/configure", PUSH_OR_POP, BodyKind::Json, configure::configure),
    answer(Method::Post, "/api/v1/ack/batch", POP, BodyKind::Json, acks::batch),
    answer(Method::Post, "/api/v1/lease/{leaseId}/extend", POP, BodyKind::OptionalJson, acks::extend),
    // It does nothing, and tells nothing but that the daemon is there.
    probe("/health", AccessRequest::Nothing, state::health),
    probe("/ready", AccessRequest::Token, state::ready),
    answer(Method::Get, "/api/v1/status/buffers", ADMIN, BodyKind::None, state::buffers),
    answer(Method::Get, "/api/v1/dead-letters", ADMIN, BodyKind::None, dead_letters::list),
    answer(Method::Post, "/api/v1/dead-letters/retry", ADMIN, BodyKind::OptionalJson, dead_letters::retry_all),
    answer(Method::Get, "/api/v1/dead-letters/{id}", ADMIN, BodyKind::None, dead_letters::show),
    answer(Method::Delete, "/api/v1/dead-letters/{id}", ADMIN, BodyKind::None, dead_letters::remove),
    answer(Method::Post, "/api/v1/dead-letters/{id}/retry", ADMIN, BodyKind::None, dead_letters::retry),
];

/// Every path's `OPTIONS`, and that of the daemon as a whole (RFC 9110 section 9.3.7).
const OPTIONS: &Route = &answer(Method::Options, "/{path...}", AccessRequest::Token, BodyKind::None, options);

const fn answer(
    method: Method,
    pattern: &'static str,
    access: AccessRequest,
    body: BodyKind,
    handler: for<'r, 'c, 'a> fn(&Request<'r, 'c, 'a>) -> Result<Reply<'a>, Refusal>,
) -> Route {
    Route { method, pattern: Pattern::new(pattern), access, body, is_probe: false, handler: Handler::Answer(handler) }
}

const fn probe(
    pattern: &'static str,
    access: AccessRequest,
    handler: for<'r, 'c, 'a> fn(&Request<'r, 'c, 'a>) -> Result<Reply<'a>, Refusal>,
) -> Route {
    Route { is_probe: true, ..answer(Method::Get, pattern, access, BodyKind::None, handler) }
}

const fn push(
    pattern: &'static str,
    body: BodyKind,
    handler: for<'r, 'c, 'a> fn(&Request<'r, 'c, 'a>) -> Result<Prepared<'c, 'a>, Refusal>,
) -> Route {
    let (method, pattern) = (Method::Post, Pattern::new(pattern));
    Route { method, pattern, access: PUSH, body, is_probe: false, handler: Handler::Push(handler) }
}

fn options<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let is_preflight = request.endpoints.gate.origins.allow(request.head.origin).is_some();
    Ok(Reply::allow(allowed(ROUTES, request.head.path), is_preflight))
}

impl Route {
    /// Whether it is a push: the log must take it.
    #[must_use]
    pub const fn is_push(&self) -> bool {
        matches!(self.handler, Handler::Push(_))
    }

    /// The methods that the row adds to its path's `Allow`.
    fn methods(&self) -> Methods {
        let methods = Methods::default().with(self.method);
        if self.method == Method::Get { methods.with(Method::Head) } else { methods }
    }
}

/// The row that a request asks for, with the values of its pattern's names.
#[derive(Clone)]
pub struct RouteMatch<'a> {
    /// The row.
    pub route: &'static Route,
    pub(super) params: PathParams<'a>,
}

impl<'a> RouteMatch<'a> {
    fn new(route: &'static Route) -> Self {
        Self { route, params: PathParams::none(&route.pattern) }
    }

    /// The same match, which borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> RouteMatch<'static> {
        RouteMatch { route: self.route, params: self.params.into_owned() }
    }

    /// The same match, whose values borrow from this one.
    #[must_use]
    pub fn borrowed(&self) -> RouteMatch<'_> {
        RouteMatch { route: self.route, params: self.params.borrowed() }
    }

    /// Whether the request asks for nothing but the methods that there are.
    #[must_use]
    pub fn is_options(&self) -> bool {
        self.route.method == Method::Options
    }

    /// The value of a name in the pattern; `None` if the pattern does not have it.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(Cow::as_ref)
    }

    /// Whether its body is lines that are pushed one by one, as they come.
    #[must_use]
    pub fn takes_lines(&self, head: &Head<'_>) -> bool {
        self.route.body == BodyKind::PayloadOrLines
            && head.media_type().is_some_and(|media_type| media_type.eq_ignore_ascii_case(NDJSON))
    }
}

/// Finds what `method` asks for at `path`, which is not decoded yet.
///
/// # Errors
/// 404 where there is nothing, 405 where there is something for another method, 400 for a segment that cannot be decoded, 501
/// for a method that nobody knows (RFC 9110 section 9.1).
pub fn find(method: Method, path: &str) -> Result<RouteMatch<'_>, Refusal> {
    find_in(ROUTES, method, path)
}

/// Whether a probe is at `path`, which is not decoded yet.
pub(super) fn is_probe(path: &str) -> bool {
    ROUTES.iter().any(|route| route.is_probe && route.pattern.capture(path).is_some())
}

#[inline]
fn find_in<'a>(table: &'static [Route], method: Method, path: &'a str) -> Result<RouteMatch<'a>, Refusal> {
    match table.iter().find(|route| route.method == method && route.pattern.is(path)) {
        Some(route) => Ok(RouteMatch::new(route)),
        None => find_by_parts(table, method, path),
    }
}

fn find_by_parts<'a>(table: &'static [Route], method: Method, path: &'a str) -> Result<RouteMatch<'a>, Refusal> {
    if method == Method::Other {
        return Err(ErrorCode::MethodNotImplemented.into());
    }
    if method == Method::Options && path == "*" {
        return Ok(RouteMatch::new(OPTIONS));
    }
    let found = table.iter().find_map(|route| Some((&route.pattern, route.pattern.capture(path)?)));
    let Some((pattern, captures)) = found else { return Err(no_such_route(path)) };
    let params = captures.decode(pattern)?;
    if method == Method::Options {
        return Ok(RouteMatch::new(OPTIONS));
    }
    let mut rows = table.iter().filter(|route| route.pattern.text() == pattern.text());
    match rows.find(|route| route.methods().has(method)) {
        Some(route) => Ok(RouteMatch { route, params }),
        None => Err(Refusal::method_not_allowed(allowed(table, path))),
    }
}

/// The methods at `path`; those that there are anywhere where it is an asterisk.
fn allowed(table: &[Route], path: &str) -> Methods {
    let found = table.iter().find(|route| route.pattern.capture(path).is_some());
    let pattern = found.map(|route| route.pattern.text());
    let rows = table.iter().filter(|route| path == "*" || Some(route.pattern.text()) == pattern);
    rows.fold(Methods::default().with(Method::Options), |methods, route| methods.union(route.methods()))
}

/// 404, or 400 for a path of which nobody can say what it is.
fn no_such_route(path: &str) -> Refusal {
    if let Some(refusal) = path::segments(path).find_map(Result::err) {
        return refusal;
    }
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

    fn texts(path: &str, method: Method) -> (&'static str, Method) {
        let found = find(method, path).unwrap();
        (found.route.pattern.text(), found.route.method)
    }

    #[test]
    fn every_row_is_found_by_a_path_of_its_pattern_and_hidden_by_no_other() {
        for route in ROUTES {
            let path = route.pattern.text().replace(['{', '}'], "");
            assert_eq!(texts(&path, route.method), (route.pattern.text(), route.method));
            let twins = ROUTES
                .iter()
                .filter(|other| other.pattern.text() == route.pattern.text() && other.method == route.method);
            assert_eq!(twins.count(), 1, "{path} comes twice");
            assert_ne!(route.method, Method::Head, "{path}: HEAD goes with GET");
        }
    }

    #[test]
    fn every_path_leads_where_it_should_and_says_what_a_token_must_allow() {
        for (method, path, pattern, access) in [
            (Method::Post, "/api/v1/push", "/api/v1/push", PUSH),
            (Method::Post, "/api/v1/p%75sh", "/api/v1/push", PUSH),
            (Method::Post, "/push/a%2Fb", "/push/{queue}", PUSH),
            (Method::Post, "/push/q/p", "/push/{queue}/{partition}", PUSH),
            (Method::Post, "/push/", "/push/{queue}", PUSH),
            (Method::Get, "/health", "/health", AccessRequest::Nothing),
            (Method::Head, "/ready", "/ready", AccessRequest::Token),
            (Method::Get, "/api/v1/status/buffers", "/api/v1/status/buffers", ADMIN),
            (Method::Get, "/api/v1/dead-letters", "/api/v1/dead-letters", ADMIN),
            (Method::Get, "/api/v1/dead-letters/7", "/api/v1/dead-letters/{id}", ADMIN),
            (Method::Delete, "/api/v1/dead-letters/7", "/api/v1/dead-letters/{id}", ADMIN),
            (Method::Post, "/api/v1/dead-letters/7/retry", "/api/v1/dead-letters/{id}/retry", ADMIN),
            (Method::Post, "/api/v1/dead-letters/retry", "/api/v1/dead-letters/retry", ADMIN),
            (Method::Options, "/push/q", OPTIONS.pattern.text(), AccessRequest::Token),
            (Method::Options, "*", OPTIONS.pattern.text(), AccessRequest::Token),
        ] {
            let found = find(method, path).unwrap();
            assert_eq!((found.route.pattern.text(), found.route.access), (pattern, access), "{path}");
        }
        let found = find(Method::Post, "/push/a%2Fb/p").unwrap();
        assert_eq!((found.param("queue"), found.param("partition")), (Some("a/b"), Some("p")));
    }

    #[test]
    fn where_there_is_nothing_it_is_404_and_for_another_method_405() {
        let status = |method, path| find(method, path).map(drop).map_err(|refusal| refusal.status);
        for path in ["/", "/push", "/push/a/b/c", "/a/b/c/d/e/f/g", "/api/v1/pushes", "/push/{queue}/{partition}/", "*"]
        {
            assert_eq!(status(Method::Post, path), Err(404), "{path}");
        }
        assert_eq!(status(Method::Get, "/api/v1/push"), Err(405));
        assert_eq!(status(Method::Post, "/health"), Err(405));
        assert_eq!(status(Method::Delete, "/api/v1/dead-letters"), Err(405));
        assert_eq!(status(Method::Trace, "/push/q"), Err(405));
        assert_eq!((status(Method::Other, "/push/q"), status(Method::Other, "/")), (Err(501), Err(501)));
        for (method, path) in [(Method::Post, "/push/%zz"), (Method::Get, "/push/%zz"), (Method::Get, "/a/%zz")] {
            assert_eq!(status(method, path), Err(400), "{path}");
        }
    }

    #[test]
    fn a_path_s_methods_are_those_of_all_rows_with_its_pattern() {
        let allow = |path| find(Method::Patch, path).map(drop).unwrap_err().allow.unwrap().to_string();
        assert_eq!(allow("/api/v1/dead-letters/retry"), "POST, OPTIONS");
        assert_eq!(allow("/api/v1/dead-letters/7"), "GET, HEAD, DELETE, OPTIONS");
        assert_eq!(allow("/health"), "GET, HEAD, OPTIONS");
        assert_eq!(allowed(ROUTES, "*").to_string(), "GET, HEAD, POST, DELETE, OPTIONS");
    }

    const GREEDY: &[Route] = &[
        answer(Method::Get, "/pop/queue/{queue...}/partition/{partition}", PUSH, BodyKind::None, options),
        answer(Method::Get, "/pop/queue/{queue...}", PUSH, BodyKind::None, options),
        answer(Method::Delete, "/pop/queue/{queue...}", PUSH, BodyKind::None, options),
    ];

    #[test]
    fn in_a_table_with_greedy_names_the_longer_pattern_stands_first_and_each_path_finds_its_own() {
        let find = |method, path| find_in(GREEDY, method, path).map_err(|refusal| refusal.status);
        let found = find(Method::Get, "/pop/queue/a/b/partition/c").unwrap();
        assert_eq!((found.param("queue"), found.param("partition")), (Some("a/b"), Some("c")));
        let found = find(Method::Head, "/pop/queue/a/partition").unwrap();
        assert_eq!((found.param("queue"), found.param("partition")), (Some("a/partition"), None));
        assert_eq!(
            find(Method::Delete, "/pop/queue/a/b/c/d/e/f/g/h/i/j").unwrap().param("queue"),
            Some("a/b/c/d/e/f/g/h/i/j")
        );
        assert_eq!(find(Method::Delete, "/pop/queue/a/partition/b").map(drop), Err(405));
        assert_eq!(find(Method::Get, "/pop/queue").map(drop), Err(404));
    }
}
