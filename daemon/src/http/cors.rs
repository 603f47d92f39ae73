//! Which web pages may ask (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! Credentials that a browser adds by itself, cookies and client certificates, are never allowed: a page must say its
//! token. So `*` is safe to allow.

/// What a preflight is told, as header lines: methods, headers, and for how many seconds.
pub const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n\
     Access-Control-Allow-Headers: Authorization, Content-Type, Content-Encoding, Idempotency-Key, Prefer\r\n\
     Access-Control-Max-Age: 86400\r\n";

/// Headers of answers that a page may read.
const EXPOSED: &str = "Forebay-Durability, Forebay-Buffer-Fill, Retry-After";

/// Headers of each answer to a page that may ask.
#[must_use]
pub fn headers(allow_origin: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("Access-Control-Allow-Origin", allow_origin),
        ("Access-Control-Expose-Headers", EXPOSED),
        // What is answered to one is not what is answered to another.
        ("Vary", "Origin"),
    ]
}

/// The origins that may ask.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<&'static str>);

impl Origins {
    /// These, or all where one of them is `*`. They are few, and live as long as the process.
    #[must_use]
    pub fn new(origins: &[String]) -> Self {
        Self(origins.iter().map(|origin| &*origin.clone().leak()).collect())
    }

    /// Whether there is any.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// What `Access-Control-Allow-Origin` says to a page of this origin, if it says anything.
    #[must_use]
    pub fn allow(&self, origin: Option<&str>) -> Option<&'static str> {
        if self.0.is_empty() {
            return None;
        }
        let origin = origin?;
        self.0.iter().find(|allowed| **allowed == "*" || **allowed == origin).copied()
    }
}

/// Checks an origin as it is configured.
///
/// # Errors
/// What is wrong, in words.
pub fn check_origin(origin: &str) -> Result<(), String> {
    let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
        let is_scheme =
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
        let is_host = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:[]".contains(&byte));
        is_scheme && is_host
    });
    if origin == "*" || is_origin {
        return Ok(());
    }
    Err(format!(
        "--cors-origin {origin:?} is no origin: a scheme and a host, in small letters, such as https://example.org"
    ))
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
