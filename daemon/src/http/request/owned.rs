//! A head that outlives the buffer from which it was read.

use super::Head;

/// Where a text stands among the texts that are kept.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

/// What is needed of a head once its request was admitted: all but `Authorization` and the host, which are done
/// with by then.
pub struct OwnedHead {
    /// With empty texts.
    head: Head<'static>,
    /// One after the other.
    texts: Box<str>,
    path: Span,
    query: Span,
    content_type: Option<Span>,
    content_encoding: Option<Span>,
    idempotency_key: Option<Span>,
    accept: Option<Span>,
    origin: Option<Span>,
}

impl OwnedHead {
    /// Copies a head.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Self {
        let mut texts = String::new();
        let mut keep = |text: &str| {
            let start = texts.len() as u32;
            texts.push_str(text);
            Span { start, end: texts.len() as u32 }
        };
        let (path, query) = (keep(head.path), keep(head.query));
        let content_type = head.content_type.map(&mut keep);
        let content_encoding = head.content_encoding.map(&mut keep);
        let idempotency_key = head.idempotency_key.map(&mut keep);
        let accept = head.accept.map(&mut keep);
        let origin = head.origin.map(&mut keep);
        let head = Head {
            path: "",
            query: "",
            content_type: None,
            content_encoding: None,
            idempotency_key: None,
            authorization: None,
            accept: None,
            origin: None,
            host: None,
            method: head.method,
            version: head.version,
            head_len: head.head_len,
            framing: head.framing,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            prefer_minimal: head.prefer_minimal,
            fetch_site: head.fetch_site,
            is_navigation: head.is_navigation,
        };
        let texts = texts.into_boxed_str();
        Self { head, texts, path, query, content_type, content_encoding, idempotency_key, accept, origin }
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        let text = |span: Span| &self.texts[span.start as usize..span.end as usize];
        Head {
            path: text(self.path),
            query: text(self.query),
            content_type: self.content_type.map(text),
            content_encoding: self.content_encoding.map(text),
            idempotency_key: self.idempotency_key.map(text),
            accept: self.accept.map(text),
            origin: self.origin.map(text),
            ..self.head
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Limits, Parsed, request};

    #[test]
    fn a_copy_is_the_head_without_what_admits_it() {
        let bytes = b"POST /p%C3%BCsh/q?wait=postgres HTTP/1.1\r\nHost: h\r\nContent-Type: t\r\nContent-Length: 3\r\n\
            Authorization: Bearer secret\r\nIdempotency-Key: \xc3\xbc\r\nAccept: a\r\nOrigin: o\r\n\
            Content-Encoding: gzip\r\nPrefer: return=minimal\r\nExpect: 100-continue\r\n\r\n";
        let Ok(Parsed::Head(head)) = request::parse(bytes, &Limits::new(100)) else { panic!("it is a head") };
        let copy = OwnedHead::of(&head);
        assert_eq!(copy.head(), Head { authorization: None, host: None, ..head });
        assert!(!copy.texts.contains("secret"));
    }
}
