//! The codes that refusals carry: one table, which the tests of `docs/http-api.md` and `docs/openapi.yaml` loop over.

use crate::json::{JsonError, push::PushErrorKind};

/// Whether a refusal says when to try again, in the header `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It does not: the same request would be refused again.
    Never,
    /// After so many seconds.
    AfterS(u64),
    /// After a time that whoever refuses measures, in seconds; this many where nothing is measured.
    MeasuredOrS(u64),
}

impl Retry {
    /// Seconds of `Retry-After` where nothing is measured.
    #[must_use]
    pub const fn default_s(self) -> Option<u64> {
        match self {
            Self::Never => None,
            Self::AfterS(seconds) | Self::MeasuredOrS(seconds) => Some(seconds),
        }
    }
}

/// Makes the enum, its list, and what is known of each code. The first status is the usual one.
macro_rules! error_codes {
    ($($variant:ident $text:literal [$($status:literal),+] $retry:expr, $sentence:literal;)+) => {
        /// What is wrong, for programs. Code, statuses and retry are part of the contract; sentences are for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`: ", $sentence)] $variant,)+
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code as the answer has it.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The statuses that it comes with; the first is the usual one.
            #[must_use]
            pub const fn statuses(self) -> &'static [u16] {
                match self { $(Self::$variant => &[$($status),+]),+ }
            }

            /// What is said where there is nothing more exact to say.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence),+ }
            }

            /// Whether and when trying again helps.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => $retry),+ }
            }
        }
    };
}

error_codes! {
    MalformedJson "malformed_json" [400] Retry::Never, "the body is not JSON";
    PayloadNotStorable "payload_not_storable" [400] Retry::Never, "PostgreSQL cannot store the payload";
    InvalidItem "invalid_item" [400] Retry::Never, "an item of the request is invalid";
    InvalidRequest "invalid_request" [400] Retry::Never, "the request is invalid";
    MalformedEncoding "malformed_encoding" [400] Retry::Never, "the body is not what Content-Encoding says";
    MalformedRequest "malformed_request" [400] Retry::Never, "the request is not valid HTTP";
    Unauthorized "unauthorized" [401] Retry::Never, "a valid token is needed";
    Forbidden "forbidden" [403] Retry::Never, "the token does not allow this";
    ForbiddenOrigin "forbidden_origin" [403] Retry::Never,
        "a web page of another origin may not send this; --cors-origin allows origins";
    NoSuchRoute "no_such_route" [404] Retry::Never, "there is no such path";
    DeadLetterNotFound "dead_letter_not_found" [404] Retry::Never, "there is no such dead letter";
    MessageNotFound "message_not_found" [404] Retry::Never, "there is no such message";
    LeaseNotFound "lease_not_found" [404] Retry::Never, "Lease not found or expired";
    InvalidLease "invalid_lease" [409] Retry::Never, "the lease is not held";
    QueueNotFound "queue_not_found" [404] Retry::Never, "there is no such queue";
    MethodNotAllowed "method_not_allowed" [405] Retry::Never, "the path does not allow this method";
    RequestTimeout "request_timeout" [408] Retry::Never, "the request came too slowly";
    LengthRequired "length_required" [411] Retry::Never, "a push needs a body, with Content-Length or in chunks";
    BodyTooLarge "body_too_large" [413] Retry::Never, "the body is too large";
    TargetTooLong "target_too_long" [414] Retry::Never, "the target is too long";
    EncodingNotSupported "encoding_not_supported" [415] Retry::Never,
        "Content-Encoding must be gzip, zstd or identity, and only one of them";
    ExpectationFailed "expectation_failed" [417] Retry::Never, "the only supported expectation is 100-continue";
    MisdirectedRequest "misdirected_request" [421] Retry::Never, "the host is not known to be this daemon's";
    RateLimited "rate_limited" [429] Retry::MeasuredOrS(1), "the token's rate of messages is exceeded";
    HeadTooLarge "head_too_large" [431] Retry::Never, "the head is too large";
    DeadLettersUnreadable "dead_letters_unreadable" [500] Retry::Never,
        "the files of dead letters cannot be read or written";
    PostgresRefuses "postgres_refuses" [500] Retry::Never, "PostgreSQL refuses the request";
    MethodNotImplemented "method_not_implemented" [501] Retry::Never, "there is no such method";
    TransferEncodingNotSupported "transfer_encoding_not_supported" [501] Retry::Never,
        "the only supported Transfer-Encoding is chunked";
    CoreStalled "core_stalled" [503] Retry::AfterS(1), "a core does not serve its connections";
    StorageFailed "storage_failed" [503] Retry::AfterS(1), "the log cannot be written; nothing of this request was kept";
    PostgresAway "postgres_away" [503] Retry::AfterS(1), "PostgreSQL cannot be reached";
    Overloaded "overloaded" [503] Retry::AfterS(1), "the daemon has too many requests in progress";
    QueuesUnknown "queues_unknown" [503] Retry::AfterS(1),
        "the queues are not known until PostgreSQL has been reached once";
    ShuttingDown "shutting_down" [503] Retry::AfterS(1), "the daemon is shutting down";
    HttpVersionNotSupported "http_version_not_supported" [505] Retry::Never,
        "the only supported versions are HTTP/1.0 and HTTP/1.1";
    LogFull "log_full" [503] Retry::MeasuredOrS(1), "the log's quota is reached, or its disk is full";
}

impl ErrorCode {
    /// The usual status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.statuses()[0]
    }
}

impl From<&JsonError> for ErrorCode {
    /// The code for a document that is a payload.
    fn from(error: &JsonError) -> Self {
        if error.kind.is_not_storable() { Self::PayloadNotStorable } else { Self::MalformedJson }
    }
}

impl From<PushErrorKind> for ErrorCode {
    fn from(kind: PushErrorKind) -> Self {
        match kind {
            PushErrorKind::MalformedJson => Self::MalformedJson,
            PushErrorKind::PayloadNotStorable => Self::PayloadNotStorable,
            PushErrorKind::InvalidItem => Self::InvalidItem,
            PushErrorKind::InvalidRequest => Self::InvalidRequest,
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_is_in_snake_case_comes_once_and_says_when_to_try_again_where_that_helps() {
        let mut texts = HashSet::new();
        for code in ErrorCode::ALL {
            assert!(code.text().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
            assert!(texts.insert(code.text()), "{code} comes twice");
            assert!(!code.sentence().is_empty() && !code.sentence().ends_with('.'), "{code}");
            for status in code.statuses() {
                let helps = matches!(status, 429 | 503);
                assert_eq!(code.retry().default_s().is_some(), helps, "{code} {status}");
            }
        }
    }
}
