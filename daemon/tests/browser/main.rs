//! Web pages of strangers: what a browser sends for them is refused on every endpoint but the probes, and what others send is not.
//! The requests are those of browsers, byte for byte; `chromium.rs` has Debian's Chromium send them.

// Test helpers may panic: that fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::let_underscore_must_use)]

#[path = "../common/mod.rs"]
mod common;

mod chromium;
mod hosts;
mod requests;
mod tokens;

use common::{Client, Daemon, Response};
use forebay::{
    api::{ROUTES, Route},
    http::Method,
};

/// What stands in a request's head behind its line, as its sender puts it there. `ADDRESS` is the daemon's.
pub struct Sender {
    /// Who it is.
    pub name: &'static str,
    /// Header lines.
    pub fields: &'static [&'static str],
    /// Status and code of its refusal, if it is refused.
    pub refusal: Option<(u16, &'static str)>,
}

const FOREIGN: Option<(u16, &str)> = Some((403, "forbidden_origin"));
const MISDIRECTED: Option<(u16, &str)> = Some((421, "misdirected_request"));

/// Browsers that act for a page of a stranger.
pub const STRANGERS: [Sender; 11] = [
    Sender {
        name: "a simple POST",
        fields: &[
            "Host: ADDRESS",
            "Origin: http://evil.example",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: no-cors",
            "Sec-Fetch-Dest: empty",
            "Content-Type: text/plain;charset=UTF-8",
        ],
        refusal: FOREIGN,
    },
    Sender { name: "an older browser", fields: &["Host: ADDRESS", "Origin: https://evil.example"], refusal: FOREIGN },
    Sender {
        name: "a form",
        fields: &[
            "Host: localhost:6632",
            "Origin: http://evil.example:8080",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Dest: document",
            "Sec-Fetch-User: ?1",
            "Content-Type: application/x-www-form-urlencoded",
        ],
        refusal: FOREIGN,
    },
    Sender {
        name: "a sandboxed frame",
        fields: &["Host: ADDRESS", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors"],
        refusal: FOREIGN,
    },
    Sender { name: "an older sandboxed frame", fields: &["Host: [::1]:6632", "Origin: null"], refusal: FOREIGN },
    Sender {
        name: "a page on an address",
        fields: &["Host: ADDRESS", "Origin: http://203.0.113.7", "Sec-Fetch-Site: cross-site"],
        refusal: FOREIGN,
    },
    Sender {
        name: "an image",
        fields: &["Host: ADDRESS", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"],
        refusal: FOREIGN,
    },
    Sender {
        name: "a link of a neighbour",
        fields: &[
            "Host: localhost",
            "Sec-Fetch-Site: same-site",
            "Sec-Fetch-Mode: navigate",
            "Sec-Fetch-Dest: document",
        ],
        refusal: FOREIGN,
    },
    Sender {
        name: "a rebound page that reads",
        fields: &["Host: rebound.example:6632", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"],
        refusal: MISDIRECTED,
    },
    Sender {
        name: "a rebound page that writes",
        fields: &["Host: rebound.example:6632", "Origin: http://rebound.example:6632"],
        refusal: MISDIRECTED,
    },
    Sender {
        name: "a page whose name looks like an address",
        fields: &["Host: 127.0.0.1.evil.example", "Origin: http://127.0.0.1.evil.example"],
        refusal: MISDIRECTED,
    },
];

/// Others: programs, people, and pages of the machine itself.
pub const FRIENDS: [Sender; 9] = [
    Sender { name: "curl", fields: &["Host: ADDRESS", "User-Agent: curl/8.5.0", "Accept: */*"], refusal: None },
    Sender {
        name: "Python",
        fields: &[
            "Host: localhost:6632",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Content-Type: application/json",
        ],
        refusal: None,
    },
    Sender { name: "a client over IPv6", fields: &["Host: [::1]:6632"], refusal: None },
    Sender { name: "another machine", fields: &["Host: 192.168.1.5"], refusal: None },
    Sender { name: "a client under TLS on a name of loopback", fields: &["Host: Queue.Localhost."], refusal: None },
    Sender {
        name: "a person who enters the address",
        fields: &["Host: ADDRESS", "Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"],
        refusal: None,
    },
    Sender {
        name: "the page itself when it reads",
        fields: &["Host: ADDRESS", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"],
        refusal: None,
    },
    Sender {
        name: "the page itself when it writes",
        fields: &["Host: ADDRESS", "Origin: http://ADDRESS", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"],
        refusal: None,
    },
    Sender {
        name: "a page of the same machine",
        fields: &["Host: ADDRESS", "Origin: http://localhost:3000", "Sec-Fetch-Site: cross-site"],
        refusal: None,
    },
];

/// A request for a route: method, path, and the body that it needs.
pub struct Target {
    /// The method.
    pub method: Method,
    /// The path, undecoded.
    pub path: String,
    /// The body, if it has one.
    pub body: Option<&'static str>,
}

impl Target {
    fn of(route: &Route) -> Self {
        let path = route.pattern.text().replace("{id}", "1").replace(['{', '}', '.'], "");
        let body = route.body.is_required().then_some(r#"{"items":[{"queue":"q","payload":1}],"qos0":true}"#);
        Self { method: route.method, path, body }
    }

    /// Sends it over a new connection.
    pub fn send(&self, daemon: &Daemon, sender: &Sender, more: &[&str]) -> Response {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method.name(), self.path);
        for field in sender.fields.iter().chain(more) {
            text += &field.replace("ADDRESS", &daemon.address.to_string());
            text += "\r\n";
        }
        if let Some(body) = self.body {
            text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        } else {
            text += "\r\n";
        }
        let mut client: Client = daemon.connect();
        client.send(text.as_bytes()).unwrap();
        client.receive(self.method == Method::Head).unwrap()
    }
}

/// Requests for all routes.
pub fn targets() -> Vec<Target> {
    ROUTES.iter().map(Target::of).collect()
}

/// Whether any sender may ask this.
pub fn is_probe(path: &str) -> bool {
    ROUTES.iter().any(|route| route.is_probe && route.pattern.text() == path)
}

/// Messages that the log has taken since it was made.
pub fn appended(daemon: &Daemon) -> u64 {
    let buffers = daemon.buffers();
    buffers["lanes"].as_array().unwrap().iter().map(|lane| lane["appendedOrdinal"].as_u64().unwrap()).sum()
}
