//! The answer to a request that is refused.

use std::borrow::Cow;

use super::{ErrorCode, Methods, ResponseOptions, response, response::Response};

/// A request's refusal: status, code and message of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status, 400 to 599; one of the code's.
    pub status: u16,
    /// The error for programs.
    pub code: ErrorCode,
    /// The error for people: what is wrong and where.
    pub message: Cow<'static, str>,
    /// Whether the connection is closed after the answer. It must be if the start of the next request is uncertain.
    pub close: bool,
    /// `Retry-After`: seconds after which a retry may succeed.
    pub retry_after_s: Option<u64>,
    /// `Allow` of a 405: the methods of the path.
    pub allow: Option<Methods>,
}

impl Refusal {
    /// A refusal with the code's usual status and `Retry-After` that leaves the connection open. `Refusal::from(code)` has the
    /// code's own sentence as message.
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

    /// 400 `malformed_request`, closing: the start of the next request is uncertain.
    #[must_use]
    pub(super) fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::MalformedRequest, message).closing()
    }

    /// 413 `body_too_large`, closing: the body is not read.
    #[must_use]
    pub fn body_too_large(max_body_bytes: u64) -> Self {
        Self::new(ErrorCode::BodyTooLarge, format!("the body is larger than {max_body_bytes} bytes")).closing()
    }

    /// 408 `request_timeout`, closing: the rest of the request is not read.
    #[must_use]
    pub fn too_slow() -> Self {
        Self::from(ErrorCode::RequestTimeout).closing()
    }

    /// 405 `method_not_allowed`, with the methods of the path.
    #[must_use]
    pub fn method_not_allowed(allow: Methods) -> Self {
        let mut refusal = Self::new(ErrorCode::MethodNotAllowed, format!("allowed here: {allow}"));
        refusal.allow = Some(allow);
        refusal
    }

    /// Appends the answer's body: `{"error":…,"code":…}`. `accepted` is the number of messages of an NDJSON body that were kept.
    pub fn write_body(&self, out: &mut Vec<u8>, accepted: Option<u64>) {
        out.extend_from_slice(b"{\"error\":");
        response::json_string(out, &self.message);
        out.extend_from_slice(b",\"code\":");
        response::json_string(out, self.code.text());
        if let Some(accepted) = accepted {
            out.extend_from_slice(b",\"accepted\":");
            response::push_number(out, accepted);
        }
        // People who use curl expect the end of a line.
        out.extend_from_slice(b"}\n");
    }

    /// Appends the whole answer, with `Retry-After` and `Allow` if they are set, `WWW-Authenticate` for a 401 and
    /// `Accept-Encoding` for a 415. The connection stays open if `options` allow it and [`Self::close`] is not set.
    pub fn write_to(&self, out: &mut Vec<u8>, accepted: Option<u64>, date_line: &[u8], options: ResponseOptions) {
        let mut body = Vec::with_capacity(64 + self.message.len());
        self.write_body(&mut body, accepted);
        let mut response = Response::start(out, self.status, response::JSON, &body);
        response.lines(response::GUARDS);
        response.lines(date_line);
        options.headers().for_each(|(name, value)| response.header(name, value));
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
        response.end(options.keep_alive && !self.close, options.head_only);
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
