//! The origins of web pages that may send requests (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! Credentials that a browser adds by itself, such as cookies and client certificates, are never allowed: a page must send its
//! token. So it is safe to allow `*`.

/// Header lines of the answer to a preflight: allowed methods, allowed headers, and how many seconds that is valid.
pub const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n\
     Access-Control-Allow-Headers: Authorization, Content-Type, Content-Encoding, Idempotency-Key, Prefer\r\n\
     Access-Control-Max-Age: 86400\r\n";

/// Response headers that a page may read.
const EXPOSED: &str = "Forebay-Durability, Forebay-Buffer-Fill, Retry-After";

/// Headers of each answer to a page of an allowed origin.
#[must_use]
pub fn headers(allow_origin: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("Access-Control-Allow-Origin", allow_origin),
        ("Access-Control-Expose-Headers", EXPOSED),
        // The answer depends on the origin, so a cache must keep one for each.
        ("Vary", "Origin"),
    ]
}

/// The allowed origins.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<&'static str>);

impl Origins {
    /// These origins, or all if one of them is `*`. They are few and are never freed.
    #[must_use]
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| &*origin.clone().leak()).collect())
    }

    /// The value of `Access-Control-Allow-Origin` for a page of this origin, if it is allowed.
    #[must_use]
    pub fn allow(&self, origin: Option<&str>) -> Option<&'static str> {
        if self.0.is_empty() {
            return None;
        }
        let origin = origin?;
        self.0.iter().find(|allowed| **allowed == "*" || **allowed == origin).copied()
    }
}

/// A text that no browser sends as an origin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin: a scheme and a host in lower case, such as https://example.org")]
pub struct NotAnOrigin(String);

/// Checks an origin as it is configured.
///
/// # Errors
/// [`NotAnOrigin`].
pub fn check_origin(origin: &str) -> Result<(), NotAnOrigin> {
    let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
        let is_scheme =
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
        let is_host = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte));
        is_scheme && is_host
    });
    if origin == "*" || is_origin { Ok(()) } else { Err(NotAnOrigin(origin.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_origin_is_allowed() {
        let origins = Origins::new(&["https://a.example".into(), "http://localhost:3000".into()]);
        assert_eq!(origins.allow(Some("https://a.example")), Some("https://a.example"));
        assert_eq!(origins.allow(Some("http://localhost:3000")), Some("http://localhost:3000"));
        for other in ["http://a.example", "https://a.example.org", "https://a.example:443", "null", "", "*"] {
            assert_eq!(origins.allow(Some(other)), None, "{other}");
        }
        assert_eq!(origins.allow(None), None);
        assert_eq!(Origins::default().allow(Some("https://a.example")), None);
        assert_eq!(Origins::new(&["*".into()]).allow(Some("https://any.example")), Some("*"));
    }

    #[test]
    fn what_no_browser_sends_as_an_origin_is_refused() {
        for origin in ["*", "https://a.example", "http://127.0.0.1:80", "http://[::1]:3000", "app+x://a"] {
            assert!(check_origin(origin).is_ok(), "{origin}");
        }
        for origin in [
            "",
            "null",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://*.example",
            "://a",
        ] {
            assert!(check_origin(origin).is_err(), "{origin}");
        }
    }
}
