//! What PostgreSQL refused: listed, shown, put back, dropped. The thread `postgres` does the work.

use super::{
    asked::Asked, letter_lines::LetterLines, letter_requests::LetterAsk, reply::Reply, request::Request,
    stream::StreamReply,
};
use crate::{
    http::{ErrorCode, Refusal, path, response::NDJSON},
    json::push,
    letters::{
        id::{InvalidLetterId, LetterId},
        page::PAGE_MAX,
    },
};
use serde::Deserialize;

/// Letters of a page where the request does not say.
const PAGE_DEFAULT: u32 = 100;

/// `GET /api/v1/dead-letters`: a page, or with `Accept: application/x-ndjson` all letters as lines.
pub(super) fn list<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let (mut queue, mut after, mut limit) = (None, None, None);
    let is_stream = request.head.accepts(NDJSON);
    for pair in path::query_pairs(request.head.query) {
        let (name, value) = pair?;
        let invalid = |error: &str| Refusal::new(ErrorCode::InvalidRequest, format!("{name}: {error}"));
        match name.as_ref() {
            "queue" => {
                push::check_queue(&value).map_err(invalid)?;
                queue = Some(value.into_owned());
            }
            "after" => after = Some(value.parse().map_err(|error: InvalidLetterId| invalid(&error.to_string()))?),
            "limit" if is_stream => return Err(invalid("a stream has no limit; it brings all letters")),
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                limit = Some(number.ok_or_else(|| invalid("must be 1 to 1000"))?);
            }
            _ => return Err(invalid("there is no such parameter; there are queue, after and limit")),
        }
    }
    if is_stream {
        let access = request.access;
        let lines = LetterLines::new(request.endpoints.letters.clone(), queue, after);
        return Ok(Reply::Stream(Box::new(StreamReply::new(NDJSON, lines, request.grant.clone(), access))));
    }
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    Ok(ask(request, LetterAsk::List { queue, after, limit }))
}

/// `GET /api/v1/dead-letters/{id}`
pub(super) fn show<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    Ok(ask(request, LetterAsk::Show(id(request)?)))
}

/// `POST /api/v1/dead-letters/{id}/retry`
pub(super) fn retry<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    Ok(ask(request, LetterAsk::Retry(id(request)?)))
}

/// `DELETE /api/v1/dead-letters/{id}`
pub(super) fn remove<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    Ok(ask(request, LetterAsk::Remove(id(request)?)))
}

fn id(request: &Request<'_, '_, '_>) -> Result<LetterId, Refusal> {
    request.params.value("id").parse().map_err(|InvalidLetterId| ErrorCode::DeadLetterNotFound.into())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryAllBody {
    queue: Option<String>,
}

/// `POST /api/v1/dead-letters/retry`
pub(super) fn retry_all<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let invalid = |error: serde_json::Error| Refusal::new(ErrorCode::InvalidRequest, format!("the body: {error}"));
    let body: RetryAllBody = match request.body {
        [] => RetryAllBody::default(),
        body => serde_json::from_slice(body).map_err(invalid)?,
    };
    if let Some(queue) = &body.queue {
        push::check_queue(queue)
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, format!("the body: queue: {error}")))?;
    }
    Ok(ask(request, LetterAsk::RetryFirst { queue: body.queue }))
}

/// A request to the thread `postgres`, whose answer is the reply.
fn ask<'a>(request: &Request<'_, '_, 'a>, what: LetterAsk) -> Reply<'a> {
    let asked = Asked::new(request.endpoints.letters.clone(), what, request.grant.owner());
    Reply::Postgres(Box::new(asked))
}
