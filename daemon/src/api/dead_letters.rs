//! What PostgreSQL refused: listed, shown, put back, dropped. The thread `postgres` does the work.

use super::{Api, Request, letter_lines::LetterLines, reply::Reply, stream::StreamReply};
use crate::{
    config::Config,
    datadir::wal_dir,
    http::{ErrorCode, Refusal, path, response::NDJSON},
    ingest::{PendingReplies, PendingReply},
    json::push,
    letters::{
        files::LetterFiles,
        id::{InvalidLetterId, LetterId},
        put_back::RetryOutcome,
        store::{DeadLetterStore, PAGE_MAX, StoreError, batches},
        view::{LetterView, RetryView},
    },
    postgres::{remedy::Remedy, schema::quoted, worker::PgRequests},
    state::{drain_view::DrainView, pg_answer::PgAnswer},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

/// What the endpoints of dead letters ask PostgreSQL with.
#[derive(Clone)]
pub(super) struct DeadLetters {
    /// The core's number.
    pub(super) core: u16,
    pub(super) replies: Rc<PendingReplies>,
    pub(super) pg_requests: PgRequests,
    pub(super) config: Arc<Config>,
    pub(super) drain: Arc<DrainView>,
}

/// Letters of a page where the request does not say.
const PAGE_DEFAULT: u32 = 100;

/// Letters of a piece of a stream: some 50 KiB, for which the thread `postgres` needs about a millisecond.
const LINES_PER_PIECE: u32 = 100;

/// Letters that one request puts back at most.
const RETRIED_MAX: u32 = PAGE_MAX;

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
        let lines = LetterLines::new(request.api.letters.clone(), queue, after);
        return Ok(Reply::Stream(Box::new(StreamReply::new(NDJSON, lines))));
    }
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    ask(request.api, async move |letters| letters.list(queue.as_deref(), after, limit).await)
}

/// `GET /api/v1/dead-letters/{id}`
pub(super) fn show<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let id = id(request)?;
    ask(request.api, async move |letters| letters.show(id).await)
}

/// `POST /api/v1/dead-letters/{id}/retry`
pub(super) fn retry<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let id = id(request)?;
    ask(request.api, async move |letters| letters.retry(id).await)
}

/// `DELETE /api/v1/dead-letters/{id}`
pub(super) fn remove<'a>(request: &Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let id = id(request)?;
    ask(request.api, async move |letters| letters.remove(id).await)
}

fn id(request: &Request<'_, '_, '_>) -> Result<LetterId, Refusal> {
    request.found.value("id").parse().map_err(|InvalidLetterId| ErrorCode::DeadLetterNotFound.into())
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
    ask(request.api, async move |letters| letters.retry_first(body.queue.as_deref()).await)
}

/// Leaves work for the thread `postgres`, whose answer is the reply.
fn ask<'a>(
    api: &Api,
    work: impl AsyncFnOnce(Letters) -> Result<PgAnswer, StoreError> + Send + 'static,
) -> Result<Reply<'a>, Refusal> {
    submit(&api.letters, work).map(Reply::Postgres)
}

/// Leaves work for the thread `postgres`.
///
/// # Errors
/// 503 when too much waits for that thread.
pub(super) fn submit(
    letters: &DeadLetters,
    work: impl AsyncFnOnce(Letters) -> Result<PgAnswer, StoreError> + Send + 'static,
) -> Result<PendingReply, Refusal> {
    let DeadLetters { core, replies, pg_requests, config, drain } = letters;
    let (config, drain) = (Arc::clone(config), Arc::clone(drain));
    let pending = replies.add();
    let is_taken = pg_requests.submit(
        *core,
        pending.id(),
        pending.cancel_flag(),
        Box::new(move |client| {
            Box::pin(async move {
                let files = LetterFiles::below(&wal_dir(&config.data_dir));
                let store = DeadLetterStore::new(client, &quoted(&config.schema), files);
                work(Letters { store, drain }).await.unwrap_or_else(|error| refused(&error))
            })
        }),
    );
    let full = "too many such requests wait for the connection to PostgreSQL";
    if is_taken { Ok(pending) } else { Err(Refusal::new(ErrorCode::Overloaded, full)) }
}

/// The dead letters as the requests see them, on the thread `postgres`.
pub(super) struct Letters {
    store: DeadLetterStore,
    drain: Arc<DrainView>,
}

impl Letters {
    async fn list(&self, queue: Option<&str>, after: Option<LetterId>, limit: u32) -> Result<PgAnswer, StoreError> {
        let page = self.store.list(queue, after, limit).await?;
        let letters: Vec<_> = page.letters.iter().map(|listed| LetterView::listed(listed.id, &listed.letter)).collect();
        let next = page.next.map(|id| id.to_string());
        Ok(done(&json!({"deadLetters": letters, "next": next, "tableRefused": page.table_refused})))
    }

    /// The letters behind `after`, each as a line of JSON; as many as a piece of the stream has.
    pub(super) async fn lines(&self, queue: Option<&str>, after: Option<LetterId>) -> Result<PgAnswer, StoreError> {
        let page = self.store.list(queue, after, LINES_PER_PIECE).await?;
        // A page says so beside its letters. A stream cannot, and must not look complete without those of the table.
        if let Some(error) = page.table_refused {
            return Ok(PgAnswer::Refused(Refusal::new(ErrorCode::PostgresRefuses, error)));
        }
        let mut lines = Vec::new();
        for listed in &page.letters {
            lines.extend_from_slice(&json(&LetterView::listed(listed.id, &listed.letter)));
            lines.push(b'\n');
        }
        Ok(PgAnswer::Lines { lines, next: page.next.map(|id| id.to_string()) })
    }

    async fn show(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
        let letter = self.store.get(id).await?;
        Ok(letter.map_or_else(not_found, |letter| done(&LetterView::whole(id, &letter))))
    }

    async fn retry(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
        let outcome = self.store.retry(id).await?;
        let is_gone = matches!(outcome, RetryOutcome::Queued { .. } | RetryOutcome::Duplicate { .. });
        self.count_down(u64::from(is_gone));
        Ok(if outcome == RetryOutcome::Gone { not_found() } else { done(&RetryView::of(id, &outcome)) })
    }

    async fn retry_first(&self, queue: Option<&str>) -> Result<PgAnswer, StoreError> {
        let page = self.store.list(queue, None, RETRIED_MAX).await?;
        let (mut queued, mut duplicate, mut failed) = (0_u64, 0_u64, 0_u64);
        for batch in batches(&page.letters) {
            let gone_before = queued + duplicate;
            let mut error = None;
            for outcome in self.store.retry_batch(batch).await? {
                match outcome {
                    Ok(RetryOutcome::Queued { .. }) => queued += 1,
                    Ok(RetryOutcome::Duplicate { .. }) => duplicate += 1,
                    Ok(RetryOutcome::Refused { .. } | RetryOutcome::NoMessage | RetryOutcome::PartitionDeleted) => {
                        failed += 1;
                    }
                    Ok(RetryOutcome::Gone) => {}
                    Err(next) => error = error.or(Some(next)),
                }
            }
            self.count_down(queued + duplicate - gone_before);
            if let Some(error) = error {
                return Err(error);
            }
        }
        let more = page.next.is_some();
        Ok(done(&json!({"queued": queued, "duplicate": duplicate, "failed": failed, "more": more})))
    }

    async fn remove(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
        let was_there = self.store.remove(id).await?;
        self.count_down(u64::from(was_there));
        Ok(if was_there { done(&json!({"id": id.to_string(), "status": "dropped"})) } else { not_found() })
    }

    /// So that the figure is right at once; the drain counts anew.
    fn count_down(&self, letters: u64) {
        let count = &self.drain.dead_letters;
        count.update(Ordering::Relaxed, Ordering::Relaxed, |count| count.saturating_sub(letters));
    }
}

fn done(value: &impl Serialize) -> PgAnswer {
    PgAnswer::Json(json(value))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| panic!("a letter can be written as JSON: {error}"))
}

fn not_found() -> PgAnswer {
    PgAnswer::Refused(ErrorCode::DeadLetterNotFound.into())
}

fn refused(error: &StoreError) -> PgAnswer {
    let refusal = match error {
        StoreError::Files(error) => Refusal::new(ErrorCode::DeadLettersUnreadable, format!("the files: {error}")),
        StoreError::Postgres(error) => match error.remedy() {
            Remedy::BackOff | Remedy::Again => return PgAnswer::away(error),
            Remedy::SetAside | Remedy::Probe | Remedy::Pause => {
                Refusal::new(ErrorCode::PostgresRefuses, error.to_string())
            }
        },
    };
    PgAnswer::Refused(refusal)
}
