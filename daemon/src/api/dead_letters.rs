//! What PostgreSQL refused: listed, shown, put back, dropped. The work is an errand; see [`crate::errands`].

use super::{Api, Request, reply::Reply};
use crate::{
    datadir::wal_dir,
    errands::{Errand, ErrandsHandle},
    http::{ErrorCode, Refusal, path},
    ingest::{Asked, PendingReplies},
    json::push,
    letters::{
        desk::{Desk, DeskError, LetterId, retried_view},
        files::LetterFiles,
        table::{PAGE_MAX, Retried},
    },
    limits::ERRAND_DEADLINE,
    postgres::{
        connect,
        remedy::{Remedy, remedy},
        schema::quoted,
    },
    state::shared::Shared,
};
use forebay_pgwire::Config;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Where the endpoints of dead letters ask PostgreSQL.
pub(super) struct DeadLetters {
    core: u16,
    replies: Rc<PendingReplies>,
    errands: ErrandsHandle,
}

impl DeadLetters {
    pub(super) fn new(core: u16, replies: Rc<PendingReplies>, errands: ErrandsHandle) -> Self {
        Self { core, replies, errands }
    }

    /// Asks for an errand to PostgreSQL; `None` when too many wait.
    fn ask(&self, what: DeadLettersErrand) -> Option<Rc<Asked>> {
        let (id, asked) = self.replies.add();
        let errand = Errand { core: self.core, id, what, asked_at: Instant::now() };
        if self.errands.ask(errand) {
            return Some(asked);
        }
        self.replies.forget(id);
        None
    }
}

/// Letters of a page where the request does not say.
const PAGE_DEFAULT: u32 = 100;

/// Letters that one request puts back at most.
const RETRIED_MAX: u32 = PAGE_MAX;

/// PostgreSQL's time for one statement, unless `--postgres-timeout-ms` is less: its word comes before our own deadline.
const STATEMENT_TIMEOUT_MAX: Duration = Duration::from_secs(8);
const _: () = assert!(STATEMENT_TIMEOUT_MAX.as_millis() < ERRAND_DEADLINE.as_millis());

/// What is to be done.
#[derive(Clone, Debug)]
pub enum DeadLettersErrand {
    /// A page of them.
    List {
        /// Only of this queue.
        queue: Option<String>,
        /// Behind this one.
        after: Option<LetterId>,
        /// So many at most.
        limit: u32,
    },
    /// One, whole.
    Show(LetterId),
    /// Puts one back.
    Retry(LetterId),
    /// Puts back those that there are.
    RetryAll {
        /// Only of this queue.
        queue: Option<String>,
    },
    /// Drops one for good.
    Drop(LetterId),
}

/// What came of an errand.
#[derive(Debug)]
pub enum Answer {
    /// 200 with this JSON.
    Done(Vec<u8>),
    /// A refusal.
    Refused(Refusal),
}

/// The answer where PostgreSQL gave none.
#[must_use]
pub fn unanswered(why: &str) -> Answer {
    Answer::Refused(Refusal::new(ErrorCode::PostgresAway, format!("PostgreSQL was not asked: {why}")))
}

/// `GET /api/v1/dead-letters`
pub(super) fn list<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let (mut queue, mut after, mut limit) = (None, None, PAGE_DEFAULT);
    for pair in path::query_pairs(request.head.query) {
        let (name, value) = pair?;
        let invalid = |error: &str| Refusal::new(ErrorCode::InvalidRequest, format!("{name}: {error}"));
        match name.as_ref() {
            "queue" => {
                push::check_queue(&value).map_err(invalid)?;
                queue = Some(value.into_owned());
            }
            "after" => after = Some(value.parse().map_err(|error: String| invalid(&error))?),
            "limit" => {
                let number = value.parse().ok().filter(|limit| (1..=PAGE_MAX).contains(limit));
                limit = number.ok_or_else(|| invalid("must be 1 to 1000"))?;
            }
            _ => return Err(invalid("there is no such parameter; there are queue, after and limit")),
        }
    }
    ask(request.api, DeadLettersErrand::List { queue, after, limit })
}

/// `GET /api/v1/dead-letters/{id}`
pub(super) fn show<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    ask(request.api, DeadLettersErrand::Show(id(&request)?))
}

/// `POST /api/v1/dead-letters/{id}/retry`
pub(super) fn retry<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    ask(request.api, DeadLettersErrand::Retry(id(&request)?))
}

/// `DELETE /api/v1/dead-letters/{id}`
pub(super) fn remove<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    ask(request.api, DeadLettersErrand::Drop(id(&request)?))
}

fn id(request: &Request<'_, '_, '_>) -> Result<LetterId, Refusal> {
    request.params.value("id").parse().map_err(|_| ErrorCode::DeadLetterNotFound.into())
}

fn ask<'a>(api: &Api, errand: DeadLettersErrand) -> Result<Reply<'a>, Refusal> {
    match api.letters.ask(errand) {
        Some(asked) => Ok(Reply::Postgres(asked)),
        None => Err(Refusal::new(ErrorCode::Overloaded, "too many such requests wait for PostgreSQL")),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryAllBody {
    queue: Option<String>,
}

/// `POST /api/v1/dead-letters/retry`
pub(super) fn retry_all<'a>(request: Request<'_, '_, 'a>) -> Result<Reply<'a>, Refusal> {
    let invalid = |error: serde_json::Error| Refusal::new(ErrorCode::InvalidRequest, format!("the body: {error}"));
    let body: RetryAllBody = match request.body {
        [] => RetryAllBody::default(),
        body => serde_json::from_slice(body).map_err(invalid)?,
    };
    if let Some(queue) = &body.queue {
        push::check_queue(queue)
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, format!("the body: queue: {error}")))?;
    }
    ask(request.api, DeadLettersErrand::RetryAll { queue: body.queue })
}

impl DeadLettersErrand {
    /// Does it, in the database that `target` names.
    pub async fn run(&self, shared: &Shared, target: &Config) -> Answer {
        let statement_timeout = shared.config.postgres_timeout.min(STATEMENT_TIMEOUT_MAX);
        let conn = match connect::connect(target, statement_timeout).await {
            Ok(conn) => conn,
            Err(error) => return refused(&DeskError::Postgres(error)),
        };
        let files = LetterFiles::below(&wal_dir(&shared.config.data_dir));
        let mut desk = Desk::new(conn, quoted(&shared.config.schema), files);
        self.at(&mut desk, shared).await.unwrap_or_else(|error| refused(&error))
    }

    async fn at(&self, desk: &mut Desk, shared: &Shared) -> Result<Answer, DeskError> {
        match self {
            Self::List { queue, after, limit } => {
                let page = desk.list(queue.as_deref(), *after, *limit).await?;
                let next = page.letters.last().filter(|_| page.letters.len() == *limit as usize);
                let next = next.map(|listed| listed.id.to_string());
                let letters: Vec<_> = page.letters.iter().map(|listed| listed.view(false)).collect();
                Ok(done(&json!({"deadLetters": letters, "next": next, "tableRefused": page.table_refused})))
            }
            Self::Show(id) => Ok(desk.get(*id).await?.map_or_else(not_found, |listed| done(&listed.view(true)))),
            Self::Retry(id) => {
                let retried = desk.retry(*id).await?;
                count_down(shared, u64::from(is_gone(&retried)));
                Ok(if retried == Retried::Gone { not_found() } else { done(&retried_view(*id, &retried)) })
            }
            Self::RetryAll { queue } => {
                let page = desk.list(queue.as_deref(), None, RETRIED_MAX).await?;
                let (mut queued, mut duplicate, mut failed) = (0_u64, 0_u64, 0_u64);
                for listed in &page.letters {
                    match desk.retry(listed.id).await? {
                        Retried::Queued { .. } => queued += 1,
                        Retried::Duplicate { .. } => duplicate += 1,
                        Retried::Refused { .. } | Retried::NoMessage => failed += 1,
                        Retried::Gone => {}
                    }
                }
                count_down(shared, queued + duplicate);
                let more = page.letters.len() == RETRIED_MAX as usize;
                Ok(done(&json!({"queued": queued, "duplicate": duplicate, "failed": failed, "more": more})))
            }
            Self::Drop(id) => {
                let was_there = desk.remove(*id).await?;
                count_down(shared, u64::from(was_there));
                Ok(if was_there { done(&json!({"id": id.to_string(), "status": "dropped"})) } else { not_found() })
            }
        }
    }
}

fn is_gone(retried: &Retried) -> bool {
    matches!(retried, Retried::Queued { .. } | Retried::Duplicate { .. })
}

/// So that the figure is right at once; the drain counts anew.
fn count_down(shared: &Shared, letters: u64) {
    let count: &AtomicU64 = &shared.drain.dead_letters;
    count.update(Ordering::Relaxed, Ordering::Relaxed, |count| count.saturating_sub(letters));
}

fn done(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => Answer::Done(body),
        Err(error) => unanswered(&error.to_string()),
    }
}

fn not_found() -> Answer {
    Answer::Refused(ErrorCode::DeadLetterNotFound.into())
}

fn refused(error: &DeskError) -> Answer {
    Answer::Refused(match error {
        DeskError::Files(error) => Refusal::new(ErrorCode::DeadLettersUnreadable, format!("the files: {error}")),
        DeskError::Postgres(error) => match remedy(error) {
            Remedy::BackOff | Remedy::Again => Refusal::new(ErrorCode::PostgresAway, error.to_string()),
            Remedy::SetAside | Remedy::Probe | Remedy::Pause => {
                Refusal::new(ErrorCode::PostgresRefuses, error.to_string())
            }
        },
    })
}
