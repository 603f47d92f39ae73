//! Hosts, as `Host`, the target of a request and `Origin` name them (RFC 3986 section 3.2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The host of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// An address.
    Address(IpAddr),
    /// A name in any case of letters, without the dot that may end it.
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// The host of `host`, `host:` or `host:port`, with an address of IPv6 in brackets. `None` if the text has another form.
    #[must_use]
    pub fn of_authority(authority: &'a str) -> Option<Self> {
        let host_end = match authority.starts_with('[') {
            true => authority.find(']')? + 1,
            false => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, port) = authority.split_at(host_end);
        let is_port = match port.strip_prefix(':') {
            Some(digits) => digits.is_empty() || is_number(digits) && digits.parse::<u16>().is_ok(),
            None => port.is_empty(),
        };
        if is_port { Self::of_text(host) } else { None }
    }

    /// The host of an origin with a scheme that browsers load pages by: `http://host:port`. `None` for `null` and all others.
    #[must_use]
    pub fn of_origin(origin: &'a str) -> Option<Self> {
        ["http://", "https://"].into_iter().find_map(|scheme| origin.strip_prefix(scheme)).and_then(Self::of_authority)
    }

    /// A host without a port. `None` if the text is none. The forms of addresses are those that browsers send: four numbers
    /// without leading zeros, or IPv6 in brackets.
    #[must_use]
    pub fn of_text(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let address: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        name.split('.').all(is_label).then_some(Self::Name(name))
    }

    /// Whether only the machine itself has it: a loopback address, `localhost`, or a name below that (RFC 6761 section 6.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")),
        }
    }

    /// Whether both are the same host. Names are compared without regard to case.
    #[must_use]
    pub fn is(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Self::Address(own), Host::Address(other)) => own == other,
            (Self::Name(own), Host::Name(other)) => own.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text that is no host as it is configured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host: a name or an address without scheme, port or path, such as forebay.example, or *")]
pub struct NotAHost(String);

/// Checks a host as it is configured: a name, an address (of IPv6 in brackets), or `*`.
///
/// # Errors
/// [`NotAHost`].
pub fn check_host(host: &str) -> Result<(), NotAHost> {
    if host == "*" || Host::of_text(host).is_some() { Ok(()) } else { Err(NotAHost(host.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<Host<'static>> {
        Some(Host::Address(text.parse().unwrap()))
    }

    #[test]
    fn an_authority_is_a_host_with_or_without_a_port() {
        for (text, host) in [
            ("127.0.0.1", address("127.0.0.1")),
            ("127.0.0.1:6632", address("127.0.0.1")),
            ("127.0.0.1:", address("127.0.0.1")),
            ("[::1]", address("::1")),
            ("[::1]:65535", address("::1")),
            ("[2001:DB8::1]:1", address("2001:db8::1")),
            ("[::ffff:10.0.0.1]", address("::ffff:10.0.0.1")),
            ("LocalHost.:80", Some(Host::Name("LocalHost"))),
            ("my_service-1.ns", Some(Host::Name("my_service-1.ns"))),
            // No address in the form that browsers send.
            ("127.1", Some(Host::Name("127.1"))),
            ("0x7f.0.0.1", Some(Host::Name("0x7f.0.0.1"))),
            ("127.000.0.1", Some(Host::Name("127.000.0.1"))),
            ("127.0.0.1.evil.example:6632", Some(Host::Name("127.0.0.1.evil.example"))),
        ] {
            assert_eq!(Host::of_authority(text), host, "{text}");
        }
        for text in [
            "",
            ":6632",
            ".",
            "a..b",
            "localhost..",
            ".localhost",
            "localhost:65536",
            "localhost:+80",
            "localhost:8o",
            "localhost:80:80",
            "localhost:6632.evil.example",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]6632",
            "[localhost]",
            "[fe80::1%25eth0]",
            "[::1]]",
            "user@localhost",
            "local%68ost",
            "localhost/",
            "a b",
            "bücher.example",
        ] {
            assert_eq!(Host::of_authority(text), None, "{text}");
        }
    }

    #[test]
    fn the_origins_of_pages_have_a_host_and_others_have_none() {
        assert_eq!(Host::of_origin("http://127.0.0.1:6632"), address("127.0.0.1"));
        assert_eq!(Host::of_origin("https://a.example"), Some(Host::Name("a.example")));
        for origin in [
            "null",
            "",
            "a.example",
            "http://",
            "file://",
            "HTTP://localhost",
            "ftp://localhost",
            "chrome-extension://localhost",
            "http://localhost/",
            "http://localhost http://evil.example",
            "http://evil.example@localhost",
            "https:///localhost",
        ] {
            assert_eq!(Host::of_origin(origin), None, "{origin}");
        }
    }

    #[test]
    fn loopback_is_what_only_the_machine_itself_has() {
        for text in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "A.LOCALHOST", "localhost."]
        {
            assert!(Host::of_text(text).unwrap().is_loopback(), "{text}");
        }
        for text in ["0.0.0.0", "[::]", "128.0.0.1", "localhost.example", "notlocalhost", "localhost.localdomain"] {
            assert!(!Host::of_text(text).unwrap().is_loopback(), "{text}");
        }
    }

    #[test]
    fn a_configured_host_has_no_port_and_no_scheme() {
        for host in ["*", "a", "a.example", "A.example.", "10.0.0.1", "[::1]"] {
            assert_eq!(check_host(host), Ok(()), "{host}");
        }
        for host in ["", "a:80", "http://a", "a/", "*.example", "::1", "a,b"] {
            assert!(check_host(host).is_err(), "{host}");
        }
    }
}
