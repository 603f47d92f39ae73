//! Requests about dead letters: left by a core, done by the thread `postgres`.

use crate::{
    config::Config,
    http::{ErrorCode, Refusal},
    ingest::{PendingReplies, PendingReply},
    letters::{
        files::LetterFiles,
        id::LetterId,
        put_back::RetryOutcome,
        store::{DeadLetterStore, PAGE_MAX, PageLimit, StoreError, batches},
        view::{LetterView, RetryView},
    },
    limits::STREAM_PIECE_BYTES,
    postgres::{remedy::Remedy, schema::quoted, worker::PgRequests},
    state::{drain_view::DrainView, pg_answer::PgAnswer},
};
use serde::Serialize;
use serde_json::json;
use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

/// Letters of a piece of a stream: some 50 KiB, for which the thread `postgres` needs about a millisecond.
const LINES_PER_PIECE: u32 = 100;

/// Letters that one request puts back at most.
const RETRIED_MAX: u32 = PAGE_MAX;

/// Where one core leaves requests about dead letters.
#[derive(Clone)]
pub(super) struct LetterRequests {
    /// The core's number.
    pub(super) core: u16,
    pub(super) replies: Rc<PendingReplies>,
    pub(super) pg_requests: PgRequests,
    pub(super) config: Arc<Config>,
    pub(super) drain: Arc<DrainView>,
    pub(super) files: LetterFiles,
}

impl LetterRequests {
    /// Leaves work for the thread `postgres`.
    ///
    /// # Errors
    /// 503 when too much waits for that thread.
    pub(super) fn submit(
        &self,
        work: impl AsyncFnOnce(Letters) -> Result<PgAnswer, StoreError> + Send + 'static,
    ) -> Result<PendingReply, Refusal> {
        let (config, drain, files) = (Arc::clone(&self.config), Arc::clone(&self.drain), self.files.clone());
        let pending = self.replies.add();
        let is_taken = self.pg_requests.submit(
            self.core,
            pending.id(),
            pending.cancel_flag(),
            Box::new(move |client| {
                Box::pin(async move {
                    let store = DeadLetterStore::new(client, &quoted(&config.schema), files);
                    work(Letters { store, drain }).await.unwrap_or_else(|error| refused(&error))
                })
            }),
        );
        let full = "too many such requests wait for the connection to PostgreSQL";
        if is_taken { Ok(pending) } else { Err(Refusal::new(ErrorCode::Overloaded, full)) }
    }
}

/// The dead letters as the requests see them, on the thread `postgres`.
pub(super) struct Letters {
    store: DeadLetterStore,
    drain: Arc<DrainView>,
}

impl Letters {
    /// A page of letters, of a queue or of all, behind `after`.
    pub(super) async fn list(
        &self,
        queue: Option<&str>,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<PgAnswer, StoreError> {
        let page = self.store.list(queue, after, PageLimit::letters(limit)).await?;
        let letters: Vec<_> = page.letters.iter().map(|listed| LetterView::listed(listed.id, &listed.letter)).collect();
        let next = page.next.map(|id| id.to_string());
        Ok(done(&json!({"deadLetters": letters, "next": next, "tableRefused": page.table_refused})))
    }

    /// The letters behind `after`, each as a line of JSON; as many as a piece of the stream has.
    pub(super) async fn lines(&self, queue: Option<&str>, after: Option<LetterId>) -> Result<PgAnswer, StoreError> {
        let limit = PageLimit { letters: LINES_PER_PIECE, bytes: STREAM_PIECE_BYTES };
        let page = self.store.list(queue, after, limit).await?;
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

    /// A whole letter.
    pub(super) async fn show(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
        let letter = self.store.get(id).await?;
        Ok(letter.map_or_else(not_found, |letter| done(&LetterView::whole(id, &letter))))
    }

    /// Puts a letter back.
    pub(super) async fn retry(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
        let outcome = self.store.retry(id).await?;
        let is_gone = matches!(outcome, RetryOutcome::Queued { .. } | RetryOutcome::Duplicate { .. });
        self.count_down(u64::from(is_gone));
        Ok(if outcome == RetryOutcome::Gone { not_found() } else { done(&RetryView::of(id, &outcome)) })
    }

    /// Puts the first letters back, of a queue or of all.
    pub(super) async fn retry_first(&self, queue: Option<&str>) -> Result<PgAnswer, StoreError> {
        let page = self.store.list(queue, None, PageLimit::letters(RETRIED_MAX)).await?;
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

    /// Drops a letter.
    pub(super) async fn remove(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
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
