//! Which requests may come from a page of a stranger.
//!
//! A browser sends what any page asks for to any address that its machine reaches, loopback included. Without tokens nothing
//! else stands between a page and the daemon. There are two ways, and each has its header:
//!
//! * The page asks for the daemon's address. The browser tells its origin (`Origin`), or at least that it is another one
//!   (`Sec-Fetch-Site`).
//! * The page's own name leads to the daemon's address, once the page is loaded (DNS rebinding). To the browser both have the
//!   same origin, so the page may read the answers. `Host` has the page's name.
//!
//! A page can set none of these headers. A verified token lifts the check, because a page does not know it. Basic credentials and
//! client certificates do not, because browsers add them by themselves.

use super::own_hosts::OwnHosts;
use crate::http::{ErrorCode, FetchSite, Head, Method, Refusal, cors::Origins, host::Host};
use std::cell::RefCell;

/// Tells requests that may come from a page of a stranger; shared by all cores.
#[derive(Debug)]
pub struct OriginCheck {
    /// Every host is the daemon's own: nothing is checked.
    is_off: bool,
    own: OwnHosts,
    allowed: Origins,
}

/// The last accepted `Host`, of one core. Nearly all requests of a core have the same one, and to compare it costs less than to
/// parse it.
#[derive(Debug, Default)]
pub struct LastHost(RefCell<Option<Box<[u8]>>>);

impl OriginCheck {
    /// A check with the configured hosts, the machine's name, and the origins that are allowed as well.
    #[must_use]
    pub fn new(hosts: &[String], machine: &str, allowed: Origins) -> Self {
        let is_off = hosts.iter().any(|host| host == "*");
        Self { is_off, own: OwnHosts::new(hosts.iter().map(String::as_str), machine), allowed }
    }

    /// Checks what the head says about the page that it may come from.
    ///
    /// # Errors
    /// 421 if the request is for a host that is not the daemon's, 403 if it comes from another origin that is not allowed.
    #[inline]
    pub fn check(&self, head: &Head<'_>, last: &LastHost) -> Result<(), Refusal> {
        if self.is_off {
            return Ok(());
        }
        // Clients of HTTP/1.0 may leave it out. Browsers never do.
        if let Some(host) = head.host
            && last.0.borrow().as_deref() != Some(host)
        {
            self.check_host(host)?;
            last.0.replace(Some(host.into()));
        }
        if head.origin.is_none() && head.fetch_site != FetchSite::Other { Ok(()) } else { self.check_origin(head) }
    }

    #[cold]
    fn check_host(&self, host: &[u8]) -> Result<(), Refusal> {
        // It is ASCII.
        let host = String::from_utf8_lossy(host);
        if Host::of_authority(&host).is_some_and(|host| self.own.may_be_asked(&host)) {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::MisdirectedRequest,
            format!(
                "the host \"{host:.100}\" is not known to be this daemon's; use an address or localhost, or add the name to \
                 --host"
            ),
        ))
    }

    #[cold]
    fn check_origin(&self, head: &Head<'_>) -> Result<(), Refusal> {
        let is_allowed = match head.origin {
            Some(origin) => self.allows(origin, head.host),
            // Whoever follows a link gets the page itself, which does nothing until it is used.
            None => head.is_navigation && head.path == "/" && matches!(head.method, Method::Get | Method::Head),
        };
        if is_allowed { Ok(()) } else { Err(ErrorCode::ForbiddenOrigin.into()) }
    }

    /// Whether a page of this origin may send a request for this host.
    fn allows(&self, origin: &str, asked: Option<&[u8]>) -> bool {
        if self.allowed.allow(Some(origin)).is_some() {
            return true;
        }
        let Some(page) = Host::of_origin(origin) else { return false };
        let asked = asked.and_then(|asked| std::str::from_utf8(asked).ok()).and_then(Host::of_authority);
        self.own.serves_pages(&page) || asked.is_some_and(|asked| asked.is(&page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, Parsed, request};

    fn check_of(hosts: &[&str], origins: &[&str]) -> OriginCheck {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        OriginCheck::new(&owned(hosts), "Machine", Origins::new(&owned(origins)))
    }

    fn status(check: &OriginCheck, last: &LastHost, line: &str, fields: &str) -> u16 {
        let text = format!("{line}\r\n{fields}\r\n");
        let Ok(Parsed::Head(head)) = request::parse(text.as_bytes(), &Limits::new(0)) else { panic!("{text}") };
        check.check(&head, last).map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn a_host_is_an_address_a_name_of_loopback_the_machine_s_or_a_configured_one() {
        let check = check_of(&["queue.example", "Upper.Example."], &[]);
        let status =
            |host: &str| status(&check, &LastHost::default(), "POST /x HTTP/1.1", &format!("Host: {host}\r\n"));
        for host in [
            "127.0.0.1:6632",
            "10.1.2.3",
            "[2001:db8::1]:80",
            "localhost:1",
            "LOCALHOST.",
            "a.b.localhost",
            "machine:6632",
            "queue.example",
            "QUEUE.example.:80",
            "upper.example",
        ] {
            assert_eq!(status(host), 200, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "x.queue.example",
            "machine.example",
        ] {
            assert_eq!(status(host), 421, "{host}");
        }
    }

    #[test]
    fn an_authority_in_the_target_goes_before_host_and_http_1_0_may_have_neither() {
        let check = check_of(&[], &[]);
        let status = |line: &str, fields: &str| status(&check, &LastHost::default(), line, fields);
        assert_eq!(status("GET http://127.0.0.1/x HTTP/1.1", "Host: evil.example\r\n"), 200);
        assert_eq!(status("GET http://evil.example/x HTTP/1.1", "Host: 127.0.0.1\r\n"), 421);
        assert_eq!(status("GET /x HTTP/1.0", ""), 200);
        assert_eq!(status("GET /x HTTP/1.0", "Host: evil.example\r\n"), 421);
        assert_eq!(status("GET /x HTTP/1.0", "Origin: http://evil.example\r\n"), 403);
    }

    #[test]
    fn a_host_that_was_accepted_last_says_nothing_about_another_one() {
        let (check, last) = (check_of(&[], &[]), LastHost::default());
        for (host, expected) in [("a.localhost", 200), ("evil.example", 421), ("a.localhost", 200), ("a.localhos", 421)]
        {
            assert_eq!(status(&check, &last, "GET /x HTTP/1.1", &format!("Host: {host}\r\n")), expected, "{host}");
        }
    }

    #[test]
    fn pages_of_the_machine_of_the_host_asked_and_of_allowed_origins_may_ask_and_no_others() {
        let check = check_of(&["queue.example", "10.9.9.9"], &["https://app.example"]);
        let status = |host: &str, fields: &str| {
            let fields = format!("Host: {host}\r\n{fields}");
            status(&check, &LastHost::default(), "POST /x HTTP/1.1", &fields)
        };
        for (host, origin) in [
            ("127.0.0.1:6632", "http://127.0.0.1:6632"),
            ("127.0.0.1:6632", "http://localhost:3000"),
            ("127.0.0.1:6632", "http://[::1]"),
            ("127.0.0.1:6632", "https://queue.example"),
            ("127.0.0.1:6632", "http://10.9.9.9"),
            ("127.0.0.1:6632", "http://machine"),
            ("127.0.0.1:6632", "https://app.example"),
            ("192.168.1.5:6632", "http://192.168.1.5:6632"),
        ] {
            for site in ["", "Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n"] {
                assert_eq!(status(host, &format!("Origin: {origin}\r\n{site}")), 200, "{origin} for {host}, {site}");
            }
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "https://app.example.evil.example",
            "http://app.example",
            "https://app.example:8443",
            "http://localhost.evil.example",
            "http://192.168.1.6",
            "http://203.0.113.9",
            "http://10.9.9.9.evil.example",
            "chrome-extension://abcdefghijklmnop",
        ] {
            for site in ["", "Sec-Fetch-Site: same-origin\r\n", "Sec-Fetch-Site: none\r\n"] {
                assert_eq!(status("127.0.0.1", &format!("Origin: {origin}\r\n{site}")), 403, "{origin}, {site}");
            }
        }
    }

    #[test]
    fn another_site_may_not_ask_without_an_origin_but_for_the_page_itself() {
        let check = check_of(&[], &[]);
        let status = |line: &str, fields: &str| {
            let fields = format!("Host: 127.0.0.1\r\n{fields}");
            status(&check, &LastHost::default(), &format!("{line} HTTP/1.1"), &fields)
        };
        for site in ["same-origin", "none"] {
            assert_eq!(status("GET /x", &format!("Sec-Fetch-Site: {site}\r\n")), 200, "{site}");
        }
        for site in ["cross-site", "same-site", "", "Same-Origin", "x", "none\r\nSec-Fetch-Site: cross-site"] {
            assert_eq!(status("GET /x", &format!("Sec-Fetch-Site: {site}\r\n")), 403, "{site}");
        }
        let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
        assert_eq!((status("GET /", link), status("HEAD /?a", link)), (200, 200));
        assert_eq!((status("GET /x", link), status("POST /", link)), (403, 403));
        let (frame, script) = (link.replace("document", "iframe"), link.replace("navigate", "no-cors"));
        assert_eq!((status("GET /", &frame), status("GET /", &script)), (403, 403));
        assert_eq!(status("GET /", &format!("{link}Origin: null\r\n")), 403);
    }

    #[test]
    fn an_asterisk_switches_the_check_off_for_hosts_and_all_origins_on_for_origins_only() {
        let evil = "Origin: null\r\nSec-Fetch-Site: cross-site\r\n";
        let named = "Host: evil.example\r\n";
        let addressed = "Host: 127.0.0.1\r\n";
        let status =
            |check: &OriginCheck, fields: String| status(check, &LastHost::default(), "POST /x HTTP/1.1", &fields);
        let off = check_of(&["a.example", "*"], &[]);
        assert_eq!(status(&off, format!("{named}{evil}")), 200);
        let open = check_of(&[], &["*"]);
        assert_eq!((status(&open, format!("{addressed}{evil}")), status(&open, named.to_owned())), (200, 421));
        assert_eq!(status(&open, format!("{addressed}Sec-Fetch-Site: cross-site\r\n")), 403, "no origin is shown");
    }
}
