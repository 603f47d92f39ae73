//! Requests about dead letters: left by a core, done by the thread `postgres`.

use super::letter_answers::Letters;
use crate::{
    config::Config,
    http::{ErrorCode, Refusal},
    ingest::{PendingReplies, PendingReply},
    letters::{
        files::LetterFiles,
        id::LetterId,
        store::{DeadLetterStore, StoreError},
    },
    limits::{PG_WORK_FREE_BYTES, RETRY_ANSWER_BYTES},
    postgres::{remedy::Remedy, schema::quoted, worker::PgRequests},
    state::{drain_view::DrainView, pg_answer::PgAnswer},
};
use std::{rc::Rc, sync::Arc};

/// What is asked about dead letters.
#[derive(Clone, Debug)]
pub(super) enum LetterAsk {
    /// A page of letters, of a queue or of all, behind one.
    List { queue: Option<String>, after: Option<LetterId>, limit: u32 },
    /// The same as a piece of a stream.
    Lines { queue: Option<String>, after: Option<LetterId> },
    /// A whole letter.
    Show(LetterId),
    /// Puts a letter back.
    Retry(LetterId),
    /// Puts the first letters back, of a queue or of all.
    RetryFirst { queue: Option<String> },
    /// Drops a letter.
    Remove(LetterId),
}

impl LetterAsk {
    /// Bytes of room that the first attempt takes: as many as most answers need.
    pub(super) const fn first_room_bytes(&self) -> usize {
        match self {
            Self::List { .. } | Self::Lines { .. } => PG_WORK_FREE_BYTES,
            Self::Retry(_) => RETRY_ANSWER_BYTES,
            Self::Show(_) | Self::RetryFirst { .. } | Self::Remove(_) => 0,
        }
    }

    async fn answer(self, letters: &Letters, room_bytes: usize) -> Result<PgAnswer, StoreError> {
        match self {
            Self::List { queue, after, limit } => letters.list(queue.as_deref(), after, limit, room_bytes).await,
            Self::Lines { queue, after } => letters.lines(queue.as_deref(), after).await,
            Self::Show(id) => letters.show(id, room_bytes).await,
            Self::Retry(id) => letters.retry(id).await,
            Self::RetryFirst { queue } => letters.retry_first(queue.as_deref()).await,
            Self::Remove(id) => letters.remove(id).await,
        }
    }
}

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
    /// Leaves a request for the thread `postgres`. Its answer may have `room_bytes`, or is [`PgAnswer::TooLarge`].
    ///
    /// # Errors
    /// 503 when too much waits for that thread.
    pub(super) fn submit(&self, ask: LetterAsk, room_bytes: usize) -> Result<PendingReply, Refusal> {
        let (config, drain, files) = (Arc::clone(&self.config), Arc::clone(&self.drain), self.files.clone());
        let pending = self.replies.add();
        let is_taken = self.pg_requests.submit(
            self.core,
            pending.id(),
            pending.cancel_flag(),
            Box::new(move |client| {
                Box::pin(async move {
                    let store = DeadLetterStore::new(client, &quoted(&config.schema), files);
                    let answer = ask.answer(&Letters::new(store, drain), room_bytes).await;
                    answer.unwrap_or_else(|error| refused(&error))
                })
            }),
        );
        let full = "too many such requests wait for the connection to PostgreSQL";
        if is_taken { Ok(pending) } else { Err(Refusal::new(ErrorCode::Overloaded, full)) }
    }
}

fn refused(error: &StoreError) -> PgAnswer {
    let refusal = match error {
        StoreError::Files(error) => Refusal::new(ErrorCode::DeadLettersUnreadable, format!("the files: {error}")),
        StoreError::NoRoom(error) => Refusal::new(ErrorCode::Overloaded, error.to_string()),
        StoreError::Postgres(error) => match error.remedy() {
            Remedy::BackOff | Remedy::Again => return PgAnswer::away(error),
            Remedy::SetAside | Remedy::Probe | Remedy::Pause => {
                Refusal::new(ErrorCode::PostgresRefuses, error.to_string())
            }
        },
    };
    PgAnswer::Refused(refusal)
}
