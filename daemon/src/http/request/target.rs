//! The request's target, cut (RFC 9112 section 3.2).

use super::Method;
use super::fields::is_host;
use crate::http::Refusal;

/// The parts of a target, undecoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// Of a target in absolute form.
    pub(super) authority: Option<&'a str>,
}

/// Cuts a target in origin form (`/path?query`), in absolute form (`http://host/path?query`, which a server must
/// accept), or `*` with OPTIONS.
pub(super) fn split(method: Method, target: &str) -> Result<Target<'_>, Refusal> {
    if target.bytes().any(|byte| byte == b'#') {
        return Err(Refusal::malformed("the target has a fragment"));
    }
    if target == "*" && method == Method::Options {
        return Ok(Target { path: target, query: "", authority: None });
    }
    let Some(rest) = after_scheme(target) else {
        if !target.starts_with('/') {
            return Err(Refusal::malformed("the target must start with a slash"));
        }
        let (path, query) = split_query(target);
        return Ok(Target { path, query, authority: None });
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(Refusal::malformed("the target's host is not a host"));
    }
    let (path, query) = split_query(rest);
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { path, query, authority: Some(authority) })
}

/// What is before the first question mark, and what is behind it.
fn split_query(target: &str) -> (&str, &str) {
    target.bytes().position(|byte| byte == b'?').map_or((target, ""), |at| (&target[..at], &target[at + 1..]))
}

fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}
