//! An answer that says no.

use std::borrow::Cow;

use super::{ErrorCode, Manner, Methods, response, response::Response};

/// Why a request was not taken, as its answer says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 400 to 599; one of the code's.
    pub status: u16,
    /// For programs.
    pub code: ErrorCode,
    /// For people: what is wrong and where.
    pub message: Cow<'static, str>,
    /// Whether the connection is closed after the answer: always where it is not certain where the next request starts.
    pub close: bool,
    /// When trying again may help, in seconds: `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// For 405: the methods that are allowed.
    pub allow: Option<Methods>,
}

impl Refusal {
    /// A refusal that leaves the connection open, with the code's usual status and `Retry-After`. Where the message says no more
    /// than the code's sentence, `Refusal::from(code)` is shorter.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        let retry_after_s = code.retry().default_s();
        Self { status: code.status(), code, message: message.into(), close: false, retry_after_s, allow: None }
    }

    /// The same with another of the code's statuses.
    ///
    /// # Panics
    /// If the code does not come with that status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        assert!(self.code.statuses().contains(&status), "{} does not come with {status}", self.code);
        self.status = status;
        self
    }

    /// The same, closing the connection.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The same with a measured `Retry-After`.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 400 `malformed_request`, closing: what follows cannot be trusted to be a request.
    #[must_use]
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::MalformedRequest, message).closing()
    }

    /// 413 `body_too_large`, closing: the body is not read.
    #[must_use]
    pub fn body_too_large(max_body_bytes: u64) -> Self {
        Self::new(ErrorCode::BodyTooLarge, format!("the body is larger than {max_body_bytes} bytes")).closing()
    }

    /// 408 `request_timeout`, closing: the rest is not waited for.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::from(ErrorCode::RequestTimeout).closing()
    }

    /// 405 `method_not_allowed`, with the methods that are.
    #[must_use]
    pub fn method_not_allowed(allow: Methods) -> Self {
        let mut refusal = Self::new(ErrorCode::MethodNotAllowed, format!("allowed here: {allow}"));
        refusal.allow = Some(allow);
        refusal
    }

    /// Appends the answer's body: `{"error":…,"code":…}`, and `"accepted"` where an NDJSON body was taken up to a line.
    pub fn write_body(&self, out: &mut Vec<u8>, accepted: Option<u64>) {
        out.extend_from_slice(b"{\"error\":");
        response::json_string(out, &self.message);
        out.extend_from_slice(b",\"code\":");
        response::json_string(out, self.code.text());
        if let Some(accepted) = accepted {
            out.extend_from_slice(b",\"accepted\":");
            response::push_number(out, accepted);
        }
        // The line ends for the sake of people with curl.
        out.extend_from_slice(b"}\n");
    }

    /// Appends the whole answer, with `Retry-After`, `Allow`, `WWW-Authenticate` with a 401 and `Accept-Encoding` with a 415.
    /// The connection stays open if `manner` says so and [`Self::close`] does not.
    pub fn write_to(&self, out: &mut Vec<u8>, accepted: Option<u64>, date_line: &[u8], manner: Manner) {
        let mut body = Vec::with_capacity(64 + self.message.len());
        self.write_body(&mut body, accepted);
        let mut response = Response::start(out, self.status, response::JSON, &body);
        response.lines(response::GUARDS);
        response.lines(date_line);
        manner.headers().for_each(|(name, value)| response.header(name, value));
        if let Some(seconds) = self.retry_after_s {
            response.header("Retry-After", itoa::Buffer::new().format(seconds));
        }
        if let Some(allow) = self.allow {
            response.header("Allow", &allow.to_string());
        }
        if self.status == 401 {
            response.header("WWW-Authenticate", "Bearer");
        }
        if self.status == 415 {
            response.header("Accept-Encoding", "gzip, zstd");
        }
        response.end(manner.keep_alive && !self.close, manner.head_only);
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.sentence())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for Refusal {}
