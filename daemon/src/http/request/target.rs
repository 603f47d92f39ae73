//! The request's target, cut (RFC 9112 section 3.2).

use super::Method;
use super::fields::is_host;
use crate::http::Refusal;

/// A target, undecoded.
pub(super) struct Target<'a> {
    /// Host and port of the absolute form.
    pub(super) authority: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

/// Cuts a target. It may have origin form (`/path?query`), absolute form (`http://host/path?query`, which a server must accept),
/// or be `*` with OPTIONS.
pub(super) fn split(method: Method, target: &str) -> Result<Target<'_>, Refusal> {
    if target.bytes().any(|byte| byte == b'#') {
        return Err(Refusal::malformed("the target has a fragment"));
    }
    if target == "*" && method == Method::Options {
        return Ok(Target { authority: None, path: target, query: "" });
    }
    let Some(rest) = after_scheme(target) else {
        if !target.starts_with('/') {
            return Err(Refusal::malformed("the target must start with a slash"));
        }
        let (path, query) = split_query(target);
        return Ok(Target { authority: None, path, query });
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority.as_bytes()) {
        return Err(Refusal::malformed("the target's host is not a host"));
    }
    let (path, query) = split_query(rest);
    Ok(Target { authority: Some(authority), path: if path.is_empty() { "/" } else { path }, query })
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
