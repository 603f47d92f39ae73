//! The answers to requests about dead letters, made on the thread `postgres`. None is larger than there is room for, save that a
//! page has one letter at least.

use crate::{
    http::{ErrorCode, Refusal},
    letters::{
        id::LetterId,
        page::{Listed, PAGE_BYTES_MAX, PAGE_MAX, Page, PageLimit, batches},
        put_back::RetryOutcome,
        store::{DeadLetterStore, Found, StoreError},
        view::{LetterView, RetryView},
    },
    limits::{PG_WORK_FREE_BYTES, REPLY_SMALL_BYTES, STREAM_PIECE_BYTES},
    state::{drain_view::DrainView, pg_answer::PgAnswer},
};
use serde::Serialize;
use serde_json::json;
use std::sync::{Arc, atomic::Ordering};

/// Letters of a piece of a stream: some 50 KiB, for which the thread `postgres` needs about a millisecond.
const LINES_PER_PIECE: u32 = 100;

/// Letters that one request puts back at most.
const RETRIED_MAX: u32 = PAGE_MAX;

/// The dead letters as the requests see them.
pub(super) struct Letters {
    store: DeadLetterStore,
    drain: Arc<DrainView>,
}

impl Letters {
    pub(super) fn new(store: DeadLetterStore, drain: Arc<DrainView>) -> Self {
        Self { store, drain }
    }

    /// A page of letters, of a queue or of all, behind `after`. It ends early at [`PAGE_BYTES_MAX`]; with less room than that it
    /// is whole, or too large.
    pub(super) async fn list(
        &self,
        queue: Option<&str>,
        after: Option<LetterId>,
        limit: u32,
        room_bytes: usize,
    ) -> Result<PgAnswer, StoreError> {
        let _room = self.store.room(room_bytes).await?;
        let limit = PageLimit { letters: limit, bytes: room_bytes };
        let page = self.store.list(queue, after, limit).await?;
        let may_end_early = room_bytes >= PAGE_BYTES_MAX;
        if !may_end_early && page.whole_bytes > room_bytes {
            return Ok(PgAnswer::TooLarge { bytes: page.whole_bytes.min(PAGE_BYTES_MAX) });
        }
        let mut body = b"{\"deadLetters\":[".to_vec();
        let (count, is_cut) = append_listed(&mut body, &page, b",", room_bytes);
        if is_cut && !may_end_early {
            return Ok(PgAnswer::TooLarge { bytes: PAGE_BYTES_MAX });
        }
        body.extend_from_slice(b"],\"next\":");
        append(&mut body, &next_of(&page, count, is_cut).map(|id| id.to_string()));
        body.extend_from_slice(b",\"tableRefused\":");
        append(&mut body, &page.table_refused);
        body.push(b'}');
        Ok(answer(body))
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
        let (count, is_cut) = append_listed(&mut lines, &page, b"\n", STREAM_PIECE_BYTES);
        if count > 0 {
            lines.push(b'\n');
        }
        lines.shrink_to_fit();
        Ok(PgAnswer::Lines { lines, next: next_of(&page, count, is_cut).map(|id| id.to_string()) })
    }

    /// A whole letter.
    pub(super) async fn show(&self, id: LetterId, room_bytes: usize) -> Result<PgAnswer, StoreError> {
        let most_bytes = room_bytes.max(REPLY_SMALL_BYTES);
        let _room = self.store.room(most_bytes).await?;
        match self.store.get_within(id, most_bytes).await? {
            Found::Nothing => Ok(not_found()),
            Found::TooLarge(bytes) => Ok(PgAnswer::TooLarge { bytes: about_as_json(bytes) }),
            Found::Letter(letter) => {
                let mut body = Vec::new();
                append(&mut body, &LetterView::whole(id, &letter));
                // What is to be escaped makes it larger than it was.
                let is_too_large = body.len() > most_bytes;
                Ok(if is_too_large { PgAnswer::TooLarge { bytes: body.len() + 1 } } else { answer(body) })
            }
        }
    }

    /// Puts a letter back.
    pub(super) async fn retry(&self, id: LetterId) -> Result<PgAnswer, StoreError> {
        let outcome = self.store.retry(id).await?;
        let is_gone = matches!(outcome, RetryOutcome::Queued { .. } | RetryOutcome::Duplicate { .. });
        self.count_down(u64::from(is_gone));
        Ok(if outcome == RetryOutcome::Gone { not_found() } else { done(&RetryView::of(id, &outcome)) })
    }

    /// Puts the first letters back, of a queue or of all. They are listed in short pages, since their reasons are of no use here.
    pub(super) async fn retry_first(&self, queue: Option<&str>) -> Result<PgAnswer, StoreError> {
        let mut counts = RetryCounts::default();
        let (mut after, mut rest) = (None, RETRIED_MAX);
        loop {
            let limit = PageLimit { letters: rest, bytes: PG_WORK_FREE_BYTES };
            let page = self.store.list(queue, after, limit).await?;
            for batch in batches(&page.letters) {
                self.retry_batch(batch, &mut counts).await?;
            }
            rest = rest.saturating_sub(page.letters.len() as u32);
            after = page.next;
            if after.is_none() || rest == 0 {
                break;
            }
        }
        let RetryCounts { queued, duplicate, failed } = counts;
        let more = after.is_some();
        Ok(done(&json!({"queued": queued, "duplicate": duplicate, "failed": failed, "more": more})))
    }

    async fn retry_batch(&self, batch: &[Listed], counts: &mut RetryCounts) -> Result<(), StoreError> {
        let (mut gone, mut error) = (0, None);
        for outcome in self.store.retry_batch(batch).await? {
            match outcome {
                Ok(RetryOutcome::Queued { .. }) => (counts.queued, gone) = (counts.queued + 1, gone + 1),
                Ok(RetryOutcome::Duplicate { .. }) => (counts.duplicate, gone) = (counts.duplicate + 1, gone + 1),
                Ok(RetryOutcome::Refused { .. } | RetryOutcome::NoMessage | RetryOutcome::PartitionDeleted) => {
                    counts.failed += 1;
                }
                Ok(RetryOutcome::Gone) => {}
                Err(next) => error = error.or(Some(next)),
            }
        }
        self.count_down(gone);
        error.map_or(Ok(()), Err)
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

/// What became of letters that were put back.
#[derive(Default)]
struct RetryCounts {
    queued: u64,
    duplicate: u64,
    failed: u64,
}

/// Appends the letters of a page as JSON, with `between` them, as long as `out` has no more than `most_bytes`, but one at least.
/// Returns how many there are, and whether others had no room.
fn append_listed(out: &mut Vec<u8>, page: &Page, between: &[u8], most_bytes: usize) -> (usize, bool) {
    for (count, listed) in page.letters.iter().enumerate() {
        let before_bytes = out.len();
        if count > 0 {
            out.extend_from_slice(between);
        }
        append(out, &LetterView::listed(listed.id, &listed.letter));
        if count > 0 && out.len() > most_bytes {
            out.truncate(before_bytes);
            return (count, true);
        }
    }
    (page.letters.len(), false)
}

/// The last of the first `count` letters of a page, if others follow.
fn next_of(page: &Page, count: usize, is_cut: bool) -> Option<LetterId> {
    if is_cut { page.letters[..count].last().map(|last| last.id) } else { page.next }
}

/// Bytes of JSON of a letter that has so many, with some room for what is escaped.
const fn about_as_json(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 8)
}

fn append(out: &mut Vec<u8>, value: &impl Serialize) {
    if let Err(error) = serde_json::to_writer(out, value) {
        panic!("a letter can be written as JSON: {error}");
    }
}

/// 200 with this JSON, in as much memory as it takes with the line end behind it.
fn answer(mut body: Vec<u8>) -> PgAnswer {
    body.shrink_to(body.len() + 1);
    PgAnswer::Json(body)
}

fn done(value: &impl Serialize) -> PgAnswer {
    let mut body = Vec::new();
    append(&mut body, value);
    answer(body)
}

fn not_found() -> PgAnswer {
    PgAnswer::Refused(ErrorCode::DeadLetterNotFound.into())
}
